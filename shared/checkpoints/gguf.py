"""GGUF files: a bounded, suspicious parser, and where each tensor and expert lies.

The layout (little-endian, versions 2 and 3): magic, version, tensor count, metadata count; metadata as key, type,
value; tensor infos as name, dimensions, type, offset; padding to the alignment; tensor data. One expert of a
`ffn_*_exps` tensor is one contiguous byte range for every quantisation type, since blocks run along the innermost
dimension and experts along the outermost. Source: ggml/docs/gguf.md and gguf.cpp of llama.cpp.

Not here: what experts are (`gguf_experts`), surgery on these files (`gguf_surgery`). Values of arrays are not decoded
unless asked for: a vocabulary of 150,000 words is skipped, not loaded.
"""

import math
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from shared.checkpoints.ggml_types import FILE_TYPES, TENSOR_TYPES
from shared.checkpoints.gguf_cursor import ARRAY, INTEGERS, SCALARS, STRING, UINT32, Cursor
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.regular_files import open_regular

MAGIC: Final = b"GGUF"
DEFAULT_ALIGNMENT: Final = 32
MAX_TENSORS: Final = 1 << 20
MAX_KEYS: Final = 1 << 20
MAX_NAME_BYTES: Final = 64  # GGML_MAX_NAME with its terminating zero
MAX_KEY_BYTES: Final = 65535  # the specification's limit

_SPLIT: Final = "split."
_PART_NAME: Final = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class Entry:
    """One metadata entry as it lies in the file: key, value type, and the raw bytes of key, type and value."""

    key: str
    kind: int
    raw: bytes
    value_at: int

    def scalar(self) -> int | float | bool | str | None:
        """Return a scalar or string value; None for an array."""
        if self.kind == STRING:
            return self.raw[self.value_at + 8 :].decode("utf-8", "replace")
        if self.kind == ARRAY:
            return None
        value: int | float | bool = struct.unpack_from("<" + SCALARS[self.kind], self.raw, self.value_at)[0]
        return value


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: `ne` innermost first, `offset` from the start of `file`."""

    name: str
    ne: tuple[int, ...]
    kind: int
    offset: int
    n_bytes: int
    file: Path

    @property
    def outermost(self) -> int:
        """Size of the outermost dimension: the experts of an expert tensor."""
        return self.ne[-1]


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A parsed file; nothing of the tensor data was read."""

    path: Path
    version: int
    alignment: int
    entries: tuple[Entry, ...]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    size_bytes: int
    n_parts: int = 1
    """Files the model is split into."""

    def get(self, key: str) -> int | float | bool | str | None:
        """Return a scalar metadata value, None when there is none."""
        for entry in self.entries:
            if entry.key == key:
                return entry.scalar()
        return None

    def entry(self, key: str) -> Entry | None:
        """Return a metadata entry."""
        return next((entry for entry in self.entries if entry.key == key), None)

    @property
    def architecture(self) -> str:
        """`general.architecture`."""
        return str(self.get("general.architecture") or "")

    def integer(self, key: str) -> int:
        """Return an integer value of the architecture, for example `expert_count`.

        Raises:
            DataError: missing, or an array: llama.cpp loads an array of expert_used_count and computes wrongly.
        """
        full = f"{self.architecture}.{key}"
        entry = self.entry(full)
        if entry is None or entry.kind not in INTEGERS:
            what = "missing" if entry is None else "not one integer"
            raise DataError(f"the metadata key {full!r} is {what}", where=str(self.path))
        return int(entry.scalar() or 0)

    def tensor(self, name: str) -> TensorInfo | None:
        """Return a tensor by name."""
        return next((tensor for tensor in self.tensors if tensor.name == name), None)


def parse(path: Path) -> GgufFile:
    """Parse the header of a GGUF file.

    Raises:
        DataError: truncated, corrupt or hostile: bad magic, counts, names, types, offsets beyond the end, overlaps.
        ConfigurationError: the file cannot be opened.
    """
    try:
        with open_regular(path) as file:
            return _parse(Cursor(file, path), path)
    except OSError as error:
        raise ConfigurationError(f"cannot read the model: {error.strerror}", where=str(path)) from error


def load(path: Path) -> GgufFile:
    """Parse a model, whole or split (`NAME-00001-of-00003.gguf`, any part may be named), as one file.

    Raises:
        DataError: as `parse`; or parts that do not belong together.
        ConfigurationError: a part cannot be opened, or a split model is not named as llama.cpp names it.
    """
    first = parse(path)
    count = first.get(f"{_SPLIT}count")
    if count is None or count == 0:
        return first
    match = _PART_NAME.fullmatch(path.name)
    if match is None or not isinstance(count, int) or int(match[3]) != count:
        raise ConfigurationError("a part of a split model with another name", where=str(path),
                                 hint="parts are named NAME-00001-of-00003.gguf")  # fmt: skip
    parts = [parse(path.with_name(f"{match[1]}-{n + 1:05d}-of-{count:05d}.gguf")) for n in range(count)]
    tensors = [tensor for part in parts for tensor in part.tensors]
    for number, part in enumerate(parts):
        if part.get(f"{_SPLIT}no") != number or part.get(f"{_SPLIT}count") != count:
            raise DataError("the parts do not belong together", where=str(part.path))
        if part.alignment != parts[0].alignment:
            raise DataError("the parts differ in alignment", where=str(part.path))
    total = parts[0].get(f"{_SPLIT}tensors.count")
    if len({tensor.name for tensor in tensors}) != len(tensors) or total != len(tensors):
        raise DataError(f"the parts hold {len(tensors)} tensors, {total} were promised", where=str(path))
    entries = tuple(entry for entry in parts[0].entries if not entry.key.startswith(_SPLIT))
    return replace(
        parts[0], entries=entries, tensors=tuple(tensors), size_bytes=sum(part.size_bytes for part in parts),
        n_parts=len(parts),
    )  # fmt: skip


def _parse(cursor: Cursor, path: Path) -> GgufFile:
    start = cursor.need(4)
    if cursor.buffer[start : start + 4] != MAGIC:
        raise cursor.fail("it does not begin with GGUF")
    version = cursor.number("I")
    if version not in (2, 3):
        raise cursor.fail(f"version {version}, known are 2 and 3")
    n_tensors, n_keys = cursor.number("Q"), cursor.number("Q")
    if n_tensors > MAX_TENSORS or n_keys > MAX_KEYS:
        raise cursor.fail(f"{n_tensors} tensors and {n_keys} metadata keys")
    entries: dict[str, Entry] = {}
    for _ in range(n_keys):
        entry = _entry(cursor)
        if entry.key in entries:
            raise cursor.fail(f"the key {entry.key!r} comes twice")
        entries[entry.key] = entry
    alignment = _alignment(entries, cursor)
    infos = [_tensor(cursor) for _ in range(n_tensors)]
    data_offset = -(-cursor.at // alignment) * alignment
    tensors = tuple(
        TensorInfo(name, ne, kind, data_offset + relative, n_bytes, path) for name, ne, kind, relative, n_bytes in infos
    )
    _check_tensors(tensors, alignment, data_offset, cursor)
    return GgufFile(path, version, alignment, tuple(entries.values()), tensors, data_offset, cursor.size)


def _entry(cursor: Cursor) -> Entry:
    begin = cursor.at
    key = cursor.text(MAX_KEY_BYTES, "key")
    kind = cursor.number("I")
    value_at = cursor.at - begin
    cursor.skip_value(kind)
    return Entry(key, kind, bytes(cursor.buffer[begin : cursor.at]), value_at)


def _alignment(entries: dict[str, Entry], cursor: Cursor) -> int:
    entry = entries.get("general.alignment")
    if entry is None:
        return DEFAULT_ALIGNMENT
    value = entry.scalar()
    if entry.kind != UINT32 or not isinstance(value, int) or value < 8 or value & (value - 1) or value > 1 << 20:
        raise cursor.fail(f"alignment {value!r}")
    return value


def _tensor(cursor: Cursor) -> tuple[str, tuple[int, ...], int, int, int]:
    name = cursor.text(MAX_NAME_BYTES - 1, "tensor name")
    n_dims = cursor.number("I")
    if not 1 <= n_dims <= 4:
        raise cursor.fail(f"tensor {name!r} has {n_dims} dimensions")
    ne = tuple(cursor.number("Q") for _ in range(n_dims))
    kind, relative = cursor.number("I"), cursor.number("Q")
    if kind not in TENSOR_TYPES:
        raise cursor.fail(f"tensor {name!r} has the unknown type {kind}")
    _, block, block_bytes = TENSOR_TYPES[kind]
    elements = math.prod(ne)
    if not 0 < elements < 1 << 62 or ne[0] % block:
        raise cursor.fail(f"tensor {name!r} of type {type_name(kind)} has the shape {list(ne)}")
    return name, ne, kind, relative, elements // block * block_bytes


def _check_tensors(tensors: tuple[TensorInfo, ...], alignment: int, data_offset: int, cursor: Cursor) -> None:
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise cursor.fail("a tensor name comes twice")
    end, last = data_offset, ""
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset % alignment:
            raise cursor.fail(f"tensor {tensor.name!r} is not aligned")
        if tensor.offset < end:
            raise cursor.fail(f"the tensors {last!r} and {tensor.name!r} overlap")
        end, last = tensor.offset + tensor.n_bytes, tensor.name
        if end > cursor.size:
            raise cursor.fail(f"tensor {tensor.name!r} ends {end - cursor.size} bytes beyond the file")


def type_name(kind: int) -> str:
    """Return the name of a ggml type, for example `Q4_K`."""
    return TENSOR_TYPES[kind][0]


def quantization_of(file: GgufFile) -> str:
    """Return the name of the file's type, for example `Q4_K_M`; "" where it says none."""
    file_type = file.get("general.file_type")
    return FILE_TYPES.get(file_type, str(file_type)) if isinstance(file_type, int) else ""
