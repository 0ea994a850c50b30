"""Merge experts instead of only dropping them: each new expert is a weighted sum of old ones, and so is its router row.

Merging is done before quantisation, on GGUF in F32, F16 or BF16. One-hot matrices are plain dropping, byte for byte.
The matrices lie in a safetensors file of their own (`experts` and `routers`, float64 [layer, new, old]); the result
carries its hash. Source: the merge phase of EEP, Liu et al., arXiv 2407.00945.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import gguf as gguf_library
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from shared import surgery
from shared.checkpoints import gguf, gguf_surgery, safetensors
from shared.checkpoints.base import Inline, Piece
from shared.durable import hash_file
from shared.errors import ConfigurationError, DataError
from shared.records import SurgeryPlan

Array = npt.NDArray[Any]
FLOATS: Final = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True)
class MergeMatrices:
    """[layer, new, old] weights of experts and of router rows."""

    experts: Array
    routers: Array

    def __post_init__(self) -> None:
        """Check shapes and values.

        Raises:
            DataError: not two equal, finite [layer, new, old] with at most as many new as old.
        """
        shape = self.experts.shape
        if len(shape) != 3 or self.routers.shape != shape or not 1 <= shape[1] <= shape[2]:
            raise DataError(f"merge matrices of shapes {shape} and {self.routers.shape}")
        if not (np.isfinite(self.experts).all() and np.isfinite(self.routers).all()):
            raise DataError("a merge matrix is not finite")

    @classmethod
    def of_plan(cls, plan: SurgeryPlan) -> "MergeMatrices":
        """Return the one-hot matrices that only drop.

        Raises:
            ConfigurationError: layers that keep different numbers.
        """
        if len({len(ids) for ids in plan.kept}) != 1:
            raise ConfigurationError("merging needs the same number of experts in every layer")
        one_hot = np.zeros((plan.n_layers, len(plan.kept[0]), plan.n_experts))
        for layer, ids in enumerate(plan.kept):
            one_hot[layer, np.arange(len(ids)), list(ids)] = 1.0
        return cls(one_hot, one_hot.copy())

    def save(self, path: Path) -> None:
        """Write the matrices."""
        save_file({"experts": self.experts.astype(np.float64), "routers": self.routers.astype(np.float64)}, path)

    @classmethod
    def load(cls, path: Path) -> "MergeMatrices":
        """Read matrices.

        Raises:
            ConfigurationError: not there.
            DataError: not such a file.
        """
        safetensors.parse_file(path)
        try:
            found = load_file(path)
            return cls(found["experts"], found["routers"])
        except (SafetensorError, KeyError) as error:
            raise DataError("not a file of merge matrices", where=str(path)) from error


def merge_rows(matrix: Array, rows: Array) -> Array:
    """Return `matrix` [new, old] times `rows` [old, ...] in float32; one-hot rows copy exactly."""
    flat = rows.reshape(len(rows), -1).astype(np.float32)
    return np.asarray(matrix.astype(np.float32) @ flat, np.float32).reshape(len(matrix), *rows.shape[1:])


def merge_file(source: Path, matrices: MergeMatrices, matrices_sha256: str, target: Path) -> None:
    """Write `source` with merged experts to `target`; all or nothing.

    Raises:
        ConfigurationError: a quantised or unsupported model, or matrices of another shape.
        DataError: a damaged model.
    """
    file = gguf.load(source)
    info = gguf.describe(file)
    n_layers, n_new, n_old = matrices.experts.shape
    if (n_layers, n_old) != (info.n_layers, info.n_experts) or n_new < info.experts_per_token:
        raise ConfigurationError(
            f"matrices for {n_layers} layers, {n_old} -> {n_new} experts; the model has {info.n_layers} layers of"
            f" {info.n_experts}, {info.experts_per_token} active",
            where=str(source),
        )
    row_of = {layer: row for row, layer in enumerate(gguf.expert_layers(file))}
    # The plan gives the shape of the result; which ids it keeps does not matter, since their bytes are replaced.
    plan = SurgeryPlan(
        n_experts=n_old, kept=(tuple(range(n_new)),) * n_layers, method="merged",
        parameters={"merge_matrices_sha256": matrices_sha256},
    )  # fmt: skip
    tensors, head = gguf_surgery.uniform_layout(file, plan)
    if len({tensor.file for tensor in file.tensors}) != 1:
        raise ConfigurationError("merge a whole file, not a split one", where=str(source))
    with source.open("rb") as stream:
        surgery.write_stream(_pieces(file, stream, tensors, head, matrices, row_of), target)


def _pieces(
    file: gguf.GgufFile,
    stream: BinaryIO,
    tensors: list[tuple[gguf.TensorInfo, list[Piece]]],
    head: list[Piece],
    matrices: MergeMatrices,
    row_of: dict[int, int],
) -> Iterator[Piece]:
    """Yield the result piece by piece: one merged tensor is in memory at a time."""
    yield from head
    for tensor, parts in tensors:
        if gguf.is_per_expert(tensor.name):
            original = file.tensor(tensor.name)
            assert original is not None
            row = row_of[gguf.layer_of(tensor.name)]
            is_expert = gguf.EXPERT_TENSOR.fullmatch(tensor.name) is not None
            yield Inline(_merged(stream, original, (matrices.experts if is_expert else matrices.routers)[row]))
        else:
            yield from parts
        yield Inline(bytes(-tensor.n_bytes % file.alignment))


def _merged(stream: BinaryIO, tensor: gguf.TensorInfo, matrix: Array) -> bytes:
    name = gguf.type_name(tensor.kind)
    if name not in FLOATS:
        raise ConfigurationError(
            f"{tensor.name} is quantised ({name})", hint="merge the F16 or F32 model, then quantise the result"
        )
    kind = gguf_library.GGMLQuantizationType(tensor.kind)
    stream.seek(tensor.offset)
    raw = np.frombuffer(stream.read(tensor.n_bytes), np.uint8)
    values = np.asarray(gguf_library.dequantize(raw, kind), np.float32).reshape(tuple(reversed(tensor.ne)))
    return np.asarray(gguf_library.quantize(merge_rows(matrix, values), kind)).tobytes()


def merge(source: Path, matrices_path: Path, target: Path) -> None:
    """Merge by a file of matrices; raises as `merge_file` and `MergeMatrices.load`."""
    merge_file(source, MergeMatrices.load(matrices_path), hash_file(matrices_path), target)


