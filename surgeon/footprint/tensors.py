"""Which class a tensor of a GGUF file belongs to, and on which device llama.cpp puts it."""

import re
from collections.abc import Sequence
from typing import Final

from shared.checkpoints.gguf import GgufFile, TensorInfo
from shared.wire.footprint import TensorClass

_LAYER: Final = re.compile(r"blk\.(\d+)\.(.+)")
_CLASSES: Final[dict[TensorClass, re.Pattern[str]]] = {
    "embedding": re.compile(r"token_embd|per_layer_token_embd|position_embd|token_types"),
    "output": re.compile(r"output\."),
    "experts": re.compile(r".*_exps\."),
    "shared_experts": re.compile(r".*_(sh|ch)exps?\.|ffn_gate_inp_shexp"),
    "router": re.compile(r"ffn_gate_inp|exp_probs_b|ffn_gate_tid2eid"),
    "norms": re.compile(r".*norm"),
    "attention": re.compile(r"attn_"),
    "feed_forward": re.compile(r"ffn_"),
}
"""The first that matches counts; others are `other`."""
_ALIGNMENT: Final = 128
"""No less than any backend's of a cluster; tensors are padded to it."""

HOST: Final = -1
"""The engine's own process, where the input embedding stays."""


def class_of(name: str) -> TensorClass:
    """Return the class of a tensor by its name."""
    match = _LAYER.fullmatch(name)
    own = match[2] if match else name
    return next((found for found, pattern in _CLASSES.items() if pattern.match(own)), "other")


def placed(file: GgufFile, device_of_layer: Sequence[int]) -> list[tuple[int, TensorClass, int]]:
    """Return (device, class, bytes) of every tensor as it is loaded; the last of `device_of_layer` is the output's.

    Where a file has no output matrix, llama.cpp uses the embedding for it and loads it twice.
    """
    found = [(_device(tensor.name, device_of_layer), class_of(tensor.name), padded(tensor)) for tensor in file.tensors]
    embedding = file.tensor("token_embd.weight")
    if embedding is not None and file.tensor("output.weight") is None:
        found.append((device_of_layer[-1], "output", padded(embedding)))
    return found


def padded(tensor: TensorInfo) -> int:
    """Return the bytes that a tensor takes in a buffer, never too few."""
    return -(-tensor.n_bytes // _ALIGNMENT) * _ALIGNMENT


def _device(name: str, device_of_layer: Sequence[int]) -> int:
    match = _LAYER.fullmatch(name)
    if match is not None:
        return device_of_layer[min(int(match[1]), len(device_of_layer) - 1)]
    return HOST if class_of(name) == "embedding" else device_of_layer[-1]
