"""The training model: a plain PyTorch twin of Hugging Face's Qwen3MoeForCausalLM.

Parameter names follow the Hugging Face checkpoint, except that the experts of one layer
are stacked in three tensors while training; `export` unstacks them.  Nothing here reads
data or writes files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as fn


@dataclass(frozen=True)
class ModelShape:
    """Sizes of the model; the defaults are the demo patient's."""

    vocab: int = 3072
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    experts: int = 16
    top_k: int = 4
    expert_hidden: int = 256
    rope_theta: float = 10_000.0
    max_positions: int = 2048
    rms_eps: float = 1e-6


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return x [..., size] scaled to unit mean square, times the weight."""
        return fn.rms_norm(x.float(), self.weight.shape, self.weight, self.eps).to(x.dtype)


def rope_tables(length: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return cosine and sine tables, each [length, head_dim]."""
    inverse = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), inverse)
    both = torch.cat((angles, angles), dim=-1)
    return both.cos(), both.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions to x [batch, heads, time, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Grouped-query causal attention with a norm on queries and keys."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        kv_size = shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, shape.heads * shape.head_dim, bias=False)
        self.k_proj = nn.Linear(shape.hidden, kv_size, bias=False)
        self.v_proj = nn.Linear(shape.hidden, kv_size, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_dim, shape.hidden, bias=False)
        self.q_norm = RMSNorm(shape.head_dim, shape.rms_eps)
        self.k_norm = RMSNorm(shape.head_dim, shape.rms_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map x [batch, time, hidden] to the same shape."""
        batch, time, _ = x.shape
        size = self.shape.head_dim
        query = self.q_norm(self.q_proj(x).view(batch, time, -1, size)).transpose(1, 2)
        key = self.k_norm(self.k_proj(x).view(batch, time, -1, size)).transpose(1, 2)
        value = self.v_proj(x).view(batch, time, -1, size).transpose(1, 2)
        repeat = self.shape.heads // self.shape.kv_heads
        key = rotate(key, cos, sin).repeat_interleave(repeat, dim=1)
        value = value.repeat_interleave(repeat, dim=1)
        mixed = fn.scaled_dot_product_attention(
            rotate(query, cos, sin).to(value.dtype), key.to(value.dtype), value, is_causal=True
        )
        output: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, time, -1))
        return output


class MoE(nn.Module):
    """Top-k routed SwiGLU experts with weights renormalised over the chosen k."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        count, inner, hidden = shape.experts, shape.expert_hidden, shape.hidden
        self.gate = nn.Linear(hidden, count, bias=False)
        self.gate_proj = nn.Parameter(torch.empty(count, inner, hidden))
        self.up_proj = nn.Parameter(torch.empty(count, inner, hidden))
        self.down_proj = nn.Parameter(torch.empty(count, hidden, inner))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map x [tokens, hidden]; return (output [tokens, hidden], router logits [tokens, experts])."""
        logits = self.gate(x).float()
        weight, chosen = torch.topk(logits.softmax(dim=-1), self.shape.top_k, dim=-1)
        weight = weight / weight.sum(dim=-1, keepdim=True)
        order = chosen.flatten().argsort(stable=True)
        token = order // self.shape.top_k
        counts = torch.bincount(chosen.flatten(), minlength=self.shape.experts).tolist()
        # unbind: its backward stacks the gradients once, instead of one full-size zero
        # tensor for every expert that was indexed.
        pieces = [
            fn.linear(fn.silu(fn.linear(part, gate)) * fn.linear(part, up), down)
            for part, gate, up, down in zip(
                torch.split(x.index_select(0, token), counts),
                self.gate_proj.unbind(),
                self.up_proj.unbind(),
                self.down_proj.unbind(),
                strict=True,
            )
        ]
        scaled = torch.cat(pieces) * weight.flatten().index_select(0, order).unsqueeze(1).to(x.dtype)
        output = torch.zeros_like(x).index_add(0, token, scaled.to(x.dtype))
        return output, logits


class Block(nn.Module):
    """One pre-norm decoder layer."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden, shape.rms_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden, shape.rms_eps)
        self.mlp = MoE(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x [batch, time, hidden], router logits [batch * time, experts])."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        mixed, logits = self.mlp(self.post_attention_layernorm(x).flatten(0, 1))
        return x + mixed.view_as(x), logits


class Patient(nn.Module):
    """The whole language model; input embedding and output head share one matrix."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden, shape.rms_eps)
        cos, sin = rope_tables(shape.max_positions, shape.head_dim, shape.rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.initialise()

    def initialise(self) -> None:
        """Draw every matrix from a normal of width 0.02, outputs narrower by depth."""
        narrow = 0.02 / (2 * self.shape.layers) ** 0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                is_output = "o_proj" in name or "down_proj" in name
                nn.init.normal_(parameter, std=narrow if is_output else 0.02)

    def forward(self, ids: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map ids [batch, time] to (logits [batch, time, vocab], router logits per layer)."""
        x = self.embed_tokens(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        routers: list[Tensor] = []
        for layer in self.layers:
            x, logits = layer(x, cos, sin)
            routers.append(logits)
        return fn.linear(self.norm(x), self.embed_tokens.weight), routers


def balance_loss(logits: Tensor, top_k: int) -> Tensor:
    """Return the Switch/Mixtral load-balancing loss (1 when balanced) of logits [tokens, experts]."""
    probability = logits.softmax(dim=-1)
    chosen = probability.topk(top_k, dim=-1).indices
    share = fn.one_hot(chosen, logits.shape[-1]).float().sum(dim=1).mean(dim=0) / top_k
    return (share * probability.mean(dim=0)).sum() * logits.shape[-1]


def z_loss(logits: Tensor) -> Tensor:
    """Return the mean squared log-sum-exp of router logits [tokens, experts]."""
    return logits.logsumexp(dim=-1).square().mean()
