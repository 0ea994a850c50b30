"""Bytes of merged experts: each new expert a weighted sum of old ones, in the number format of the base.

Dequantise, add, quantise again. A row of the matrix that is one old expert (weight 1, all others 0) copies that
expert's bytes, so that matrices that only drop are plain dropping, byte for byte, in every format.

The sums are float32, old experts in ascending order, one multiplication and one addition each: no BLAS, nothing fused,
so every machine computes the same. Quantising again is numpy's for the simple types and ggml's C code for the others,
of which only the same build promises the same bytes.

Not here: which matrices (`surgeon.search.eep_merge`), and where experts lie (the format modules).
"""

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any, Final

import gguf
import numpy as np
import numpy.typing as npt

from shared.checkpoints.base import Computed, Range
from shared.checkpoints.finite import require_finite
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.regular_files import open_regular

Array = npt.NDArray[np.float32]
_SUM_BYTES: Final = 128 << 20
"""Memory for sums: as many new experts as fit are made in one pass over the old ones."""
_BY_NUMPY: Final = frozenset({"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"})


def merged(experts: Sequence[Range], kind: str, matrix: Sequence[Sequence[float]]) -> Computed:
    """Return the bytes of the new experts, one behind the other.

    Args:
        experts: where each old expert lies; all have the same length.
        kind: ggml type, for example `Q4_K`.
        matrix: [new][old] weights.

    Raises:
        ConfigurationError: a type that is no number format, or that ggml quantises with an importance matrix only.
        InfrastructureError: ggml is needed and not installed.
    """
    decoded(bytes(experts[0].length), kind)
    if kind not in _BY_NUMPY and _ggml().ggml_quantize_requires_imatrix(gguf.GGMLQuantizationType[kind]):
        raise ConfigurationError(
            f"experts of the type {kind} cannot be merged: quantising needs an importance matrix",
            hint="merge the F16 model, then quantise the result",
        )
    return Computed(len(matrix) * experts[0].length, lambda: _chunks(experts, kind, matrix))


def _chunks(experts: Sequence[Range], kind: str, matrix: Sequence[Sequence[float]]) -> Iterator[bytes]:
    n_values = decoded(_read(experts[0]), kind).size
    at_once = max(1, _SUM_BYTES // (4 * n_values))
    scratch = np.empty(n_values, np.float32)
    for begin in range(0, len(matrix), at_once):
        rows = matrix[begin : begin + at_once]
        sums: list[Array | None] = [None if _only(row) is not None else np.zeros(n_values, np.float32) for row in rows]
        for old, expert in enumerate(experts):
            needed = [(total, row[old]) for total, row in zip(sums, rows, strict=True) if total is not None]
            if not any(weight for _, weight in needed):
                continue
            values = decoded(_read(expert), kind)
            require_finite(values, f"{expert.source}: expert {old}, at byte {expert.offset}")
            for total, weight in needed:
                if weight:
                    np.multiply(values, np.float32(weight), out=scratch)
                    np.add(total, scratch, out=total)
        for mixed, row in zip(sums, rows, strict=True):
            copied = _only(row)
            if copied is not None:
                yield _read(experts[copied])
            elif mixed is not None:
                require_finite(mixed, "an expert that the plan's matrices merge")
                yield encoded(mixed, kind)


def _only(row: Sequence[float]) -> int | None:
    """Return the old expert that a row copies, None when it mixes."""
    used = [old for old, weight in enumerate(row) if weight]
    return used[0] if len(used) == 1 and row[used[0]] == 1.0 else None


def _read(place: Range) -> bytes:
    with open_regular(place.source) as file:
        file.seek(place.offset)
        data = file.read(place.length)
    if len(data) != place.length:
        raise DataError("the checkpoint became shorter while it was read", where=str(place.source))
    return data


def decoded(data: bytes, kind: str) -> Array:
    """Return the values of bytes of a ggml type, flat.

    Raises:
        ConfigurationError: no floating-point type that is known here.
    """
    try:
        values = gguf.dequantize(np.frombuffer(data, np.uint8), gguf.GGMLQuantizationType[kind])
    except (KeyError, NotImplementedError) as error:
        raise ConfigurationError(f"values of the type {kind} cannot be computed with") from error
    return np.asarray(values, np.float32).reshape(-1)


def encoded(values: Array, kind: str) -> bytes:
    """Return flat values as bytes of a ggml type.

    Raises:
        DataError: a value does not fit F16.
    """
    number = gguf.GGMLQuantizationType[kind]
    if kind in _BY_NUMPY:
        with np.errstate(over="ignore"):
            result = np.asarray(gguf.quantize(values.reshape(1, -1), number))
        if kind == "F16" and not np.isfinite(result).all():
            raise DataError("a merged value does not fit F16", hint="convert to BF16 or F32")
        return result.tobytes()
    block, block_bytes = gguf.GGML_QUANT_SIZES[number]
    target = ctypes.create_string_buffer(values.size // block * block_bytes)
    written = _ggml().ggml_quantize_chunk(number, values.ctypes.data, target, 0, 1, values.size, None)
    assert written == len(target), (written, len(target))
    return target.raw


def _ggml() -> Any:
    from shared.llama.model import ggml

    library = ggml()
    library.ggml_quantize_requires_imatrix.argtypes = [ctypes.c_int]
    library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    return library
