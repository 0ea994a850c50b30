"""A GGUF file made of a base's: its metadata with changes, and tensors whose bytes are pieces of the base or new.

Not here: which tensors and which changes (`gguf_surgery`), and writing anything (`surgery.write_outputs`).
"""

import struct
from collections.abc import Iterable, Sequence

from shared.checkpoints.base import Inline, OutputFile, Piece, Zeros, joined
from shared.checkpoints.gguf import MAGIC, GgufFile, TensorInfo
from shared.checkpoints.gguf_cursor import BOOL, STRING, UINT32


class Header:
    """The metadata of the result: the base's raw entries with some replaced, added or renamed, in a stable order."""

    def __init__(self, file: GgufFile) -> None:
        self._entries = {entry.key: entry.raw for entry in file.entries}

    def set_uint32(self, key: str, value: int) -> None:
        """Set an unsigned number."""
        self._entries[key] = _key(key, UINT32) + struct.pack("<I", value)

    def set_bool(self, key: str, value: bool) -> None:
        """Set a truth value."""
        self._entries[key] = _key(key, BOOL) + struct.pack("<?", value)

    def set_text(self, key: str, value: bytes) -> None:
        """Set a text, in UTF-8."""
        self._entries[key] = _key(key, STRING) + struct.pack("<Q", len(value)) + value

    def drop_prefix(self, prefix: str) -> None:
        """Leave out all keys that begin with `prefix`."""
        self._entries = {key: raw for key, raw in self._entries.items() if not key.startswith(prefix)}

    def rename_prefix(self, old: str, new: str) -> None:
        """Rename all keys that begin with `old`."""
        self._entries = {_renamed(key, old, new): _rekeyed(key, raw, old, new) for key, raw in self._entries.items()}

    def __len__(self) -> int:
        return len(self._entries)

    def __bytes__(self) -> bytes:
        return b"".join(self._entries.values())


def _key(key: str, kind: int) -> bytes:
    name = key.encode()
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind)


def _renamed(key: str, old: str, new: str) -> str:
    return new + key[len(old) :] if key.startswith(old) else key


def _rekeyed(key: str, raw: bytes, old: str, new: str) -> bytes:
    if not key.startswith(old):
        return raw
    name = _renamed(key, old, new).encode()
    return struct.pack("<Q", len(name)) + name + raw[8 + len(key.encode()) :]


def output_of(file: GgufFile, header: Header, tensors: Sequence[tuple[TensorInfo, Sequence[Piece]]]) -> OutputFile:
    """Return the file with this metadata and these tensors; of each, the pieces make up its `n_bytes`.

    Where a tensor lies is decided here: its own `offset` is not looked at.
    """
    head = _head(file, header, [tensor for tensor, _ in tensors])
    return OutputFile("", joined([*head, *_data(file, tensors)]))


def _head(file: GgufFile, header: Header, tensors: Iterable[TensorInfo]) -> list[Piece]:
    """Return magic, counts, metadata and tensor infos with new offsets, padded to where the data begins."""
    infos: list[bytes] = []
    offset = 0
    for tensor in tensors:
        name = tensor.name.encode()
        infos.append(
            struct.pack("<Q", len(name)) + name + struct.pack("<I", len(tensor.ne))
            + struct.pack(f"<{len(tensor.ne)}Q", *tensor.ne) + struct.pack("<IQ", tensor.kind, offset)
        )  # fmt: skip
        offset += tensor.n_bytes + _padding(tensor.n_bytes, file.alignment)
    head = MAGIC + struct.pack("<IQQ", file.version, len(infos), len(header)) + bytes(header) + b"".join(infos)
    return [Inline(head + bytes(_padding(len(head), file.alignment)))]


def _data(file: GgufFile, tensors: Iterable[tuple[TensorInfo, Sequence[Piece]]]) -> list[Piece]:
    pieces: list[Piece] = []
    for tensor, parts in tensors:
        pieces.extend(parts)
        pieces.append(Zeros(_padding(tensor.n_bytes, file.alignment)))
    return pieces


def _padding(length: int, alignment: int) -> int:
    return -length % alignment
