"""A plain float64 forward of a Qwen3-MoE, Qwen2-MoE or Mixtral checkpoint, and naive expert statistics from it.

Independent of the product's code on purpose: it reads the safetensors with the library, loops over tokens and experts,
and is what the engine's statistics are compared with.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


@dataclass
class LayerTrace:
    """One layer: [T, E] probabilities, [T, k] selected and gates, [T, k, d] outputs, [T, d] before, routed, inputs."""

    probabilities: np.ndarray
    selected: np.ndarray
    gates: np.ndarray
    outputs: np.ndarray
    before: np.ndarray
    routed: np.ndarray
    inputs: np.ndarray
    inner: np.ndarray


class NumpyQwen3Moe:
    """Weights in float64."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = {
            _qwen_name(name): value.astype(np.float64)
            for name, value in load_file(folder / "model.safetensors").items()
        }
        if "num_local_experts" in self.config:
            self.config["num_experts"] = self.config["num_local_experts"]
            self.config["moe_intermediate_size"] = self.config["intermediate_size"]

    def forward(self, tokens: list[int], allowed: list[set[int]] | None = None) -> tuple[np.ndarray, list[LayerTrace]]:
        """Return log-probabilities [T, vocab] and a trace per layer; others than `allowed[layer]` get logit -inf."""
        c, w = self.config, self.weights
        x = w["model.embed_tokens.weight"][tokens]
        traces = []
        for layer in range(c["num_hidden_layers"]):
            at = f"model.layers.{layer}"
            x = x + self._attention(_rms(x, w[f"{at}.input_layernorm.weight"]), f"{at}.self_attn")
            inputs = _rms(x, w[f"{at}.post_attention_layernorm.weight"])
            trace = self._experts(inputs, x, at, None if allowed is None else allowed[layer])
            traces.append(trace)
            x = x + trace.routed + self._shared(inputs, f"{at}.mlp")
        logits = _rms(x, w["model.norm.weight"]) @ w["model.embed_tokens.weight"].T
        return logits - _logsumexp(logits), traces

    def _attention(self, x: np.ndarray, at: str) -> np.ndarray:
        c, w = self.config, self.weights
        heads, kv_heads, size = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        n = len(x)
        q = self._linear(x, f"{at}.q_proj").reshape(n, heads, size)
        k = self._linear(x, f"{at}.k_proj").reshape(n, kv_heads, size)
        v = self._linear(x, f"{at}.v_proj").reshape(n, kv_heads, size)
        if f"{at}.q_norm.weight" in w:
            q, k = _rms(q, w[f"{at}.q_norm.weight"]), _rms(k, w[f"{at}.k_norm.weight"])
        inverse = 1.0 / c["rope_theta"] ** (np.arange(0, size, 2) / size)
        angles = np.concatenate([np.outer(np.arange(n), inverse)] * 2, axis=1)[:, None, :]
        q, k = _rotate(q, angles), _rotate(k, angles)
        out = np.empty((n, heads, size))
        mask = np.triu(np.full((n, n), -np.inf), 1)
        for head in range(heads):
            other = head // (heads // kv_heads)
            scores = q[:, head] @ k[:, other].T / np.sqrt(size) + mask
            out[:, head] = np.exp(scores - _logsumexp(scores)) @ v[:, other]
        return out.reshape(n, -1) @ w[f"{at}.o_proj.weight"].T

    def _linear(self, x: np.ndarray, at: str) -> np.ndarray:
        return x @ self.weights[f"{at}.weight"].T + self.weights.get(f"{at}.bias", 0.0)

    def _shared(self, inputs: np.ndarray, at: str) -> np.ndarray:
        if f"{at}.shared_expert_gate.weight" not in self.weights:
            return np.zeros_like(inputs)
        gate = self._linear(inputs, f"{at}.shared_expert.gate_proj")
        hidden = gate / (1 + np.exp(-gate)) * self._linear(inputs, f"{at}.shared_expert.up_proj")
        share = 1 / (1 + np.exp(-self._linear(inputs, f"{at}.shared_expert_gate")))
        return share * self._linear(hidden, f"{at}.shared_expert.down_proj")

    def _experts(self, inputs: np.ndarray, before: np.ndarray, at: str, allowed: set[int] | None) -> LayerTrace:
        c, w = self.config, self.weights
        k, n, d = c["num_experts_per_tok"], *inputs.shape
        logits = inputs @ w[f"{at}.mlp.gate.weight"].T
        if allowed is not None:
            logits[:, [expert for expert in range(c["num_experts"]) if expert not in allowed]] = -np.inf
        probabilities = np.exp(logits - _logsumexp(logits))
        selected = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        gates = np.take_along_axis(probabilities, selected, 1)
        if c.get("norm_topk_prob", True):
            gates /= gates.sum(axis=1, keepdims=True)
        outputs, inner = np.empty((n, k, d)), np.empty((n, k, c["moe_intermediate_size"]))
        for t in range(n):
            for slot in range(k):
                mlp = f"{at}.mlp.experts.{selected[t, slot]}"
                g = w[f"{mlp}.gate_proj.weight"] @ inputs[t]
                inner[t, slot] = g / (1 + np.exp(-g)) * (w[f"{mlp}.up_proj.weight"] @ inputs[t])
                outputs[t, slot] = w[f"{mlp}.down_proj.weight"] @ inner[t, slot]
        routed = np.einsum("tk,tkd->td", gates, outputs)
        return LayerTrace(probabilities, selected, gates, outputs, before, routed, inputs, inner)


def naive_statistics(traces: list[LayerTrace]) -> dict[str, np.ndarray]:
    """Return the sums of the methods' definitions, token by token."""
    n_layers, n_experts = len(traces), traces[0].probabilities.shape[1]
    names = ("selections", "softmax_sum", "gate_sum", "norm_sum", "norm_max", "gate_norm_sum", "easy_sum")
    sums = {name: np.zeros((n_layers, n_experts)) for name in names}
    for layer, trace in enumerate(traces):
        sums["softmax_sum"][layer] = trace.probabilities.sum(axis=0)
        for t in range(len(trace.gates)):
            after = trace.before[t] + trace.routed[t]
            cosine = trace.before[t] @ after / np.linalg.norm(trace.before[t]) / np.linalg.norm(after)
            for expert, gate, output in zip(trace.selected[t], trace.gates[t], trace.outputs[t], strict=True):
                norm = np.linalg.norm(output)
                sums["selections"][layer, expert] += 1
                sums["gate_sum"][layer, expert] += gate
                sums["norm_sum"][layer, expert] += norm
                sums["norm_max"][layer, expert] = max(sums["norm_max"][layer, expert], norm)
                sums["gate_norm_sum"][layer, expert] += gate * norm
                sums["easy_sum"][layer, expert] += max(0.0, 1 - cosine) * gate * norm
    return sums


def _qwen_name(name: str) -> str:
    """Return Qwen's name of one of Mixtral's tensors; others stay."""
    for old, new in ((".block_sparse_moe.", ".mlp."), (".w1.", ".gate_proj."), (".w3.", ".up_proj."),
                     (".w2.", ".down_proj.")):  # fmt: skip
        name = name.replace(old, new)
    return name


def _rms(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) * weight


def _rotate(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    half = x.shape[-1] // 2
    turned = np.concatenate([-x[..., half:], x[..., :half]], axis=-1)
    return x * np.cos(angles) + turned * np.sin(angles)


def _logsumexp(x: np.ndarray) -> np.ndarray:
    largest = x.max(axis=-1, keepdims=True)
    return largest + np.log(np.exp(x - largest).sum(axis=-1, keepdims=True))
