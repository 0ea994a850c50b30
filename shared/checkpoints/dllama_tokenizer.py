"""distributed-llama's tokenizer files (.t): their header, and a suspicious parser.

A file is int32 magic, int32 header size, (key, value) int32 pairs, the chat template, the end-of-text ids, and the
vocabulary: score, length and bytes of each token. Little-endian throughout. Source: `Tokenizer` in src/tokenizer.cpp of
distributed-llama v0.16.4 (commit 8d624a7). Not here: encoding texts (the node agent), writing one (the surgeon).
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.regular_files import RECORDS_BYTES, read_bytes

MAGIC: Final = 0x567124
KEYS: Final = {
    "version": 0, "vocab_size": 1, "max_token_length": 2, "bos_id": 3, "chat_template": 7, "n_eos_tokens": 9,
    "add_bos": 10,
}  # fmt: skip
_NAMES: Final = {number: name for name, number in KEYS.items()}
_MAX_HEADER_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class TokenizerFile:
    """A parsed file; special tokens begin at the id `bos`."""

    pieces: tuple[bytes, ...]
    scores: tuple[float, ...]
    ends: tuple[int, ...]
    """Ids of the end-of-text tokens."""
    bos: int
    adds_bos: bool


def parse(path: Path) -> TokenizerFile:
    """Read a .t file.

    Raises:
        ConfigurationError: it cannot be read.
        DataError: another format; truncated, corrupt or hostile.
    """
    try:
        data = read_bytes(path, RECORDS_BYTES)
    except OSError as error:
        raise ConfigurationError(f"cannot read the tokenizer: {error.strerror}", where=str(path)) from error

    def take(at: int, length: int) -> bytes:
        if length < 0 or at + length > len(data):
            raise DataError("the file ends early", where=f"{path} at byte {at}")
        return data[at : at + length]

    magic, size = struct.unpack("<Ii", take(0, 8))
    if magic != MAGIC or size < 8 or size % 8 or size > _MAX_HEADER_BYTES:
        raise DataError("not a distributed-llama tokenizer", where=str(path))
    values: dict[str, int] = {}
    for key, value in struct.iter_unpack("<ii", take(8, size - 8)):
        if key not in _NAMES:
            raise DataError(f"unknown header key {key}", where=str(path))
        values[_NAMES[key]] = value  # of a repeated key the last value counts
    if lacking := [name for name in ("vocab_size", "bos_id") if name not in values]:
        raise DataError(f"the header lacks {lacking[0]}", where=str(path))
    at = size + max(values.get("chat_template", 0), 0)
    n_ends, n_tokens = values.get("n_eos_tokens", 0), values["vocab_size"]
    if not 0 <= n_tokens <= len(data) // 8 or n_ends < 0:
        raise DataError(f"{n_tokens} tokens, {n_ends} ends", where=str(path))
    ends = tuple(int(end) for (end,) in struct.iter_unpack("<i", take(at, 4 * n_ends)))
    at += 4 * n_ends
    pieces: list[bytes] = []
    scores: list[float] = []
    for _ in range(n_tokens):
        score, length = struct.unpack("<fI", take(at, 8))
        scores.append(score)
        pieces.append(take(at + 8, length))
        at += 8 + length
    return TokenizerFile(tuple(pieces), tuple(scores), ends, values["bos_id"], values.get("add_bos", 1) == 1)
