"""How each supported Hugging Face architecture names its experts and what GGUF calls it.

Not here: the conversion (`surgeon.conversion.to_gguf`); surgery on safetensors has its own patterns
(`shared.checkpoints.safetensors_experts`), since it must not need the gguf library.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import gguf

_STACKED_PARTS: Final = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"}
_EXPERT_TENSORS: Final = {
    "gate": gguf.MODEL_TENSOR.FFN_GATE_EXP,
    "up": gguf.MODEL_TENSOR.FFN_UP_EXP,
    "down": gguf.MODEL_TENSOR.FFN_DOWN_EXP,
}


@dataclass(frozen=True)
class Family:
    """One architecture; `experts` comes between `model.layers.N` and an expert's number or a stacked part."""

    architecture: gguf.MODEL_ARCH
    experts: str = ".mlp.experts."
    parts: Mapping[str, str] = field(default_factory=lambda: _STACKED_PARTS)
    """Names of an expert's matrices -> gate, up, down."""
    inner_size: str = "moe_intermediate_size"
    """The key of config.json that says how wide an expert is."""
    interleaved_rope: bool = False
    """llama.cpp rotates neighbouring rows of q and k, Hugging Face rows half a head apart: the rows are dealt anew."""
    says_norm_topk_prob: bool = True
    """config.json says whether gates are divided by their sum; false where it is silent, as in transformers."""

    def part(self, name: str) -> str | None:
        """Return gate, up or down for the name of a numbered expert's or a stacked matrix; None for any other."""
        return self.parts.get(name) or _STACKED_PARTS.get(name)


FAMILIES: Final[Mapping[str, Family]] = {
    "Qwen3MoeForCausalLM": Family(gguf.MODEL_ARCH.QWEN3MOE),
    "Qwen2MoeForCausalLM": Family(gguf.MODEL_ARCH.QWEN2MOE),
    "MixtralForCausalLM": Family(
        gguf.MODEL_ARCH.LLAMA, ".block_sparse_moe.experts.", {"w1": "gate", "w3": "up", "w2": "down"},
        "intermediate_size", interleaved_rope=True, says_norm_topk_prob=False,
    ),
}  # fmt: skip


def expert_tensor(layer: int, part: str) -> str:
    """Return GGUF's name of the experts' gate, up or down of a layer."""
    return f"{gguf.TENSOR_NAMES[_EXPERT_TENSORS[part]].format(bid=layer)}.weight"
