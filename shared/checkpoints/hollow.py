"""GGUF files with all of their header and none of their data: what llama.cpp needs to say what a model would take.

The file is as long as the model and holds only what is not tensor data; the rest is a hole that takes no disk. Not
here: what is done with it (`surgeon.footprint`).
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from shared.checkpoints.base import Inline, OutputFile, Zeros
from shared.checkpoints.ggml_types import TENSOR_TYPES
from shared.checkpoints.gguf import GgufFile, TensorInfo
from shared.checkpoints.gguf_writing import Header, output_of
from shared.kernel.errors import DataError

_NUMBERS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}


def write_hollow(output: OutputFile, target: Path) -> None:
    """Write what `output` says literally, at its place; everything else stays a hole of the file's full length."""
    with target.open("wb") as file:
        for piece in output.pieces:
            if isinstance(piece, Inline):
                file.write(piece.data)
            else:
                file.seek(piece.length, 1)
        file.truncate(output.size_bytes)


def retyped(file: GgufFile, types: Mapping[str, str]) -> OutputFile:
    """Return the model with its tensors in other types, by name (for example `Q4_K`), and zeros for data.

    Raises:
        DataError: a type that is unknown, or that a tensor's rows cannot have.
    """
    tensors = [_retyped(tensor, types.get(tensor.name)) for tensor in file.tensors]
    return output_of(file, Header(file), [(tensor, (Zeros(tensor.n_bytes),)) for tensor in tensors])


def _retyped(tensor: TensorInfo, name: str | None) -> TensorInfo:
    if name is None:
        return tensor
    if name not in _NUMBERS:
        raise DataError(f"the tensor type {name} is unknown", where=tensor.name)
    kind = _NUMBERS[name]
    _, block, block_bytes = TENSOR_TYPES[kind]
    if tensor.ne[0] % block:
        raise DataError(f"rows of {tensor.ne[0]} cannot be {name}", where=tensor.name)
    return replace(tensor, kind=kind, n_bytes=math.prod(tensor.ne) // block * block_bytes)
