"""Quantise a GGUF with llama.cpp's own llama_model_quantize: the bytes are those of llama-quantize.

Not here: conversion (`surgeon.conversion.to_gguf`), slicing an importance matrix with a plan
(`surgeon.conversion.imatrix`).
"""

import ctypes
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.checkpoints import gguf
from shared.files.atomic import atomic_write
from shared.files.disk import refusal, storage_error
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.progress import Progress
from shared.llama import model as llama

_LINE: Final = re.compile(r"\[\s*(\d+)/\s*(\d+)\]\s*(\S+)")
_TYPES: Final = re.compile(r"\] +(\S+) +- \[[^\]]*\], type = +(\w+), size = [^\n(]*(?:\((\w+)\))?")
_PREFIX: Final = "LLAMA_FTYPE_MOSTLY_"


def file_types() -> dict[str, int]:
    """Return the quantisation names llama.cpp knows, for example `Q4_K_M`, with their numbers."""
    lib = llama.api()
    found = {name.removeprefix(_PREFIX): int(getattr(lib, name)) for name in dir(lib) if name.startswith(_PREFIX)}
    return {**found, "F32": int(lib.LLAMA_FTYPE_ALL_F32)}


def quantize(
    source: Path,
    target: Path,
    quantization: str,
    *,
    imatrix: Mapping[str, npt.NDArray[np.float32]] | None = None,
    threads: int = 1,
    on_progress: Progress | None = None,
) -> None:
    """Quantise `source` (F32, F16 or BF16) to `target`, whole or not at all.

    Args:
        source: the GGUF to quantise.
        target: the result.
        quantization: for example `Q4_K_M`.
        imatrix: mean squares of inputs by tensor name, [columns] or [experts * columns]; None: without.
        threads: CPU threads; the result does not depend on them.
        on_progress: called with 0..1 and the tensor's name.

    Raises:
        ConfigurationError: an unknown quantisation, or one that needs an importance matrix.
        StorageError: the disk is full.
        DataError: llama.cpp refuses the file; its words are in the message.
    """
    number = _number(quantization)
    gguf.parse(source)  # llama.cpp is not asked to survive a hostile file
    lib = llama.api()
    params = lib.llama_model_quantize_default_params()
    params.nthread, params.ftype = threads, number
    keep = _imatrix_array(lib, imatrix) if imatrix else None
    if keep is not None:
        params.imatrix = keep[0]

    def listen(text: str) -> None:
        if on_progress is not None and (match := _LINE.search(text)):
            on_progress(int(match[1]) / int(match[2]), match[3])

    with atomic_write(target) as beside:
        with llama.listening(listen):
            status = lib.llama_model_quantize(str(source).encode(), str(beside).encode(), ctypes.byref(params))
        if status != 0:
            # A stream that could not be written is all that llama.cpp knows: the disk knows why.
            if (refused := refusal(beside)) is not None and (error := storage_error(refused, target)) is not None:
                raise error
            raise DataError(f"llama.cpp cannot quantise to {quantization}: {llama.log_tail()}", where=str(source))


def quantized_types(source: Path, quantization: str) -> dict[str, str]:
    """Return the type that each tensor of `source` would get, by name (for example `Q6_K`); no data is read.

    Raises:
        ConfigurationError: an unknown quantisation.
        DataError: llama.cpp refuses the file.
    """
    number = _number(quantization)
    gguf.load(source)  # llama.cpp is not asked to survive a hostile file
    lib = llama.api()
    params = lib.llama_model_quantize_default_params()
    params.nthread, params.ftype, params.dry_run = 1, number, True
    said: list[str] = []
    with llama.listening(said.append):
        status = lib.llama_model_quantize(str(source).encode(), b"", ctypes.byref(params))
    if status != 0:
        raise DataError(f"llama.cpp cannot quantise to {quantization}: {llama.log_tail()}", where=str(source))
    return {match[1]: (match[3] or match[2]).upper() for match in _TYPES.finditer("".join(said))}


def _number(quantization: str) -> int:
    number = file_types().get(quantization)
    if number is None:
        raise ConfigurationError(
            f"unknown quantisation {quantization!r}", hint=f"known: {', '.join(sorted(file_types()))}"
        )
    return number


def _imatrix_array(lib: Any, imatrix: Mapping[str, npt.NDArray[np.float32]]) -> tuple[Any, list[Any]]:
    """Return llama.cpp's null-terminated array and what must stay alive with it."""
    array = (lib.llama_model_imatrix_data * (len(imatrix) + 1))()
    alive: list[Any] = []
    for slot, (name, values) in zip(array, sorted(imatrix.items()), strict=False):
        data = np.ascontiguousarray(values, np.float32).reshape(-1)
        alive.append(data)
        slot.name = name.encode()
        slot.data = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        slot.size = data.size
    return array, alive
