"""Safetensors checkpoints as Hugging Face writes them: one file or shards with an index, and their config.json.

A safetensors file is a 64-bit little-endian header length, a JSON header (name -> dtype, shape, data_offsets) and the
data. Source: the format description of the safetensors library. Parsed here by hand, since the library maps whole
files and this module must refuse hostile ones before anything is touched.

Not here: surgery on these checkpoints (`safetensors_surgery`).
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.regular_files import open_regular, read_bytes

MAX_HEADER_BYTES: Final = 100_000_000  # the library's own limit
INDEX_NAME: Final = "model.safetensors.index.json"
SINGLE_NAME: Final = "model.safetensors"
DTYPE_BYTES: Final[Mapping[str, int]] = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor: `offset` from the start of its file, `shape` outermost first."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class TensorFile:
    """One parsed safetensors file; tensors in the order of their data."""

    path: Path
    tensors: tuple[TensorEntry, ...]
    metadata: Mapping[str, str]
    data_offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A Hugging Face checkpoint directory."""

    path: Path
    config: Mapping[str, Any]
    files: tuple[TensorFile, ...]
    index_metadata: Mapping[str, Any] | None

    @property
    def architecture(self) -> str:
        """The class named in config.json, for example `Qwen3MoeForCausalLM`."""
        names = self.config.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else ""

    def tensors(self) -> dict[str, TensorEntry]:
        """Return all tensors by name."""
        return {tensor.name: tensor for file in self.files for tensor in file.tensors}

    def integer(self, *keys: str) -> int:
        """Return the first of `keys` that config.json has.

        Raises:
            DataError: none is there, or it is not a positive integer.
        """
        for key in keys:
            value = self.config.get(key)
            if value is not None:
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise DataError(f"{key} is {value!r}", where=str(self.path / "config.json"))
                return value
        raise DataError(f"{' or '.join(keys)} is missing", where=str(self.path / "config.json"))


def read_json(path: Path, limit: int = MAX_HEADER_BYTES) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ConfigurationError: the file is not there.
        DataError: not a JSON object, or larger than `limit` bytes.
    """
    try:
        if path.stat().st_size > limit:
            raise DataError(f"more than {limit} bytes of JSON", where=str(path))
        data = read_bytes(path, limit)
    except OSError as error:
        raise ConfigurationError(f"cannot read it: {error.strerror}", where=str(path)) from error
    return _json_object(data, path)


def _json_object(data: bytes, path: Path) -> dict[str, Any]:
    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key comes twice")
        return result

    try:
        value = json.loads(data, object_pairs_hook=no_repeats)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not sound JSON: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise DataError("not a JSON object", where=str(path))
    return value


def parse_file(path: Path) -> TensorFile:
    """Parse the header of one safetensors file.

    Raises:
        ConfigurationError: it cannot be opened.
        DataError: truncated, corrupt or hostile: lengths beyond the end, overlaps, shapes that do not fit.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            if len(start) < 8:
                raise DataError("too short for a safetensors file", where=str(path))
            length = struct.unpack("<Q", start)[0]
            if length > MAX_HEADER_BYTES or 8 + length > size:
                raise DataError(f"a header of {length} bytes in a file of {size}", where=str(path))
            header = _json_object(file.read(length), path)
    except OSError as error:
        raise ConfigurationError(f"cannot read it: {error.strerror}", where=str(path)) from error
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DataError("__metadata__ is not an object of strings", where=str(path))
    data_offset = 8 + length
    entries = [_entry(name, value, path, data_offset) for name, value in header.items()]
    entries.sort(key=lambda entry: (entry.offset, entry.n_bytes, entry.name))
    end = data_offset
    for entry in entries:
        if entry.offset < end:
            raise DataError(f"tensor {entry.name!r} overlaps another", where=str(path))
        end = entry.offset + entry.n_bytes
    if end > size:
        raise DataError(f"the data ends {end - size} bytes beyond the file: truncated?", where=str(path))
    return TensorFile(path, tuple(entries), metadata, data_offset, size)


def _entry(name: str, value: Any, path: Path, data_offset: int) -> TensorEntry:
    def fail(what: str) -> DataError:
        return DataError(f"tensor {name!r}: {what}", where=str(path))

    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise fail("its entry is not dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise fail(f"unknown dtype {dtype!r}")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
            raise fail(f"bad numbers {numbers!r:.80}")
    if len(shape) > 8 or len(offsets) != 2 or offsets[1] < offsets[0]:
        raise fail("bad shape or offsets")
    n_bytes = math.prod(shape) * DTYPE_BYTES[dtype]
    if n_bytes != offsets[1] - offsets[0]:
        raise fail(f"shape {shape} of {dtype} takes {n_bytes} bytes, its range has {offsets[1] - offsets[0]}")
    return TensorEntry(name, dtype, tuple(shape), path, data_offset + offsets[0], n_bytes)


def parse(path: Path) -> Checkpoint:
    """Parse a checkpoint directory: config.json, then model.safetensors or the shards of its index.

    Raises:
        ConfigurationError: a file is missing.
        DataError: a damaged or hostile file, or an index that contradicts its shards.
    """
    config = read_json(path / "config.json")
    index_path = path / INDEX_NAME
    if not index_path.exists():
        return Checkpoint(path, config, (parse_file(path / SINGLE_NAME),), None)
    index = read_json(index_path)
    weight_map, metadata = index.get("weight_map"), index.get("metadata", {})
    if not isinstance(weight_map, dict) or not isinstance(metadata, dict):
        raise DataError("weight_map or metadata is not an object", where=str(index_path))
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise DataError(f"{name!r:.80} is not the name of a file beside the index", where=str(index_path))
    files = tuple(parse_file(path / name) for name in sorted(set(weight_map.values())))
    held = {tensor.name: tensor.file.name for file in files for tensor in file.tensors}
    if held != weight_map or sum(len(file.tensors) for file in files) != len(held):
        wrong = sorted(set(held.items()) ^ set(weight_map.items()))
        raise DataError(
            f"index and shards disagree, first about {wrong[0][0] if wrong else 'a repeated tensor'!r}",
            where=str(index_path),
        )
    return Checkpoint(path, config, files, metadata)
