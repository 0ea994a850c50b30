"""The two files distributed-llama reads: the model's header (.m) and the tokenizer (.t).

Here: what the engine must know before it starts, and how many tokens a prompt has, since `dllama` takes texts and
counts of positions only. Not here: the .m format itself (`shared.checkpoints.dllama`).

Format of the tokenizer: distributed-llama at commit 8d624a7, `Tokenizer` in src/tokenizer.cpp.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from shared.checkpoints.dllama import read_header
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.regular_files import RECORDS_BYTES, read_bytes

_TOKENIZER_MAGIC = 0x567124
_MAX_HEADER_BYTES = 1 << 16
Q40 = 2


@dataclass(frozen=True)
class ModelHeader:
    """What the header of a .m file says, as far as starting it depends on it."""

    architecture: str
    n_layers: int
    n_kv_heads: int
    n_experts: int
    n_active_experts: int
    vocab_size: int
    seq_len: int
    weight_type: int


def _pairs(data: bytes, magic: int, path: Path) -> tuple[dict[int, int], int]:
    """Return the (key, value) pairs after the magic and the header's size; a repeated key keeps its last value."""
    if len(data) < 8 or struct.unpack_from("<i", data)[0] != magic:
        raise DataError("not a distributed-llama file of this kind", where=str(path))
    size = struct.unpack_from("<i", data, 4)[0]
    if size < 8 or size % 8 or size > min(len(data), _MAX_HEADER_BYTES):
        raise DataError(f"the header claims {size} bytes", where=str(path))
    values = struct.unpack_from(f"<{(size - 8) // 4}i", data, 8)
    return dict(zip(values[::2], values[1::2], strict=True)), size


def read_model_header(path: Path) -> ModelHeader:
    """Read the header of a .m file.

    Raises:
        ConfigurationError: it cannot be opened.
        DataError: another format, or a damaged header.
    """
    header = read_header(path)
    values = header.values
    if "max_seq_len" not in values:
        raise DataError("the header lacks max_seq_len", where=str(path))
    return ModelHeader(
        architecture=header.architecture, n_layers=values["n_layers"], n_kv_heads=values["n_kv_heads"],
        n_experts=values.get("n_experts", 0), n_active_experts=values.get("n_active_experts", 0),
        vocab_size=values["vocab_size"], seq_len=values["max_seq_len"], weight_type=values["weights_float_type"],
    )  # fmt: skip


def check_nodes(header: ModelHeader, n_nodes: int) -> None:
    """Refuse numbers of nodes that distributed-llama asserts on after minutes of loading.

    Raises:
        ConfigurationError: not a power of two, or more than KV heads.
    """
    allowed = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= header.n_kv_heads]
    if n_nodes not in allowed:
        raise ConfigurationError(
            f"distributed-llama cannot run this model on {n_nodes} nodes",
            where=f"{header.n_kv_heads} KV heads", hint=f"use one of {', '.join(map(str, allowed))} nodes",
        )  # fmt: skip


@dataclass
class DllamaTokenizer:
    """distributed-llama's own encoder: bytes to the first known piece, then the best-scored merges."""

    pieces: list[bytes]
    scores: list[float]
    bos: int
    add_bos: bool
    _regular: dict[bytes, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Special tokens begin at the BOS id; of equal pieces the first one counts.
        self._regular = {}
        for token, piece in enumerate(self.pieces[: self.bos]):
            self._regular.setdefault(piece, token)

    @classmethod
    def read(cls, path: Path) -> "DllamaTokenizer":
        """Read a .t file.

        Raises:
            ConfigurationError: it cannot be read.
            DataError: another format, or a truncated file.
        """
        try:
            data = read_bytes(path, RECORDS_BYTES)
        except OSError as error:
            raise ConfigurationError(f"cannot read the tokenizer: {error.strerror}", where=str(path)) from error
        pairs, at = _pairs(data, _TOKENIZER_MAGIC, path)
        at += max(pairs.get(7, 0), 0) + 4 * pairs.get(9, 0)
        pieces: list[bytes] = []
        scores: list[float] = []
        try:
            for _ in range(pairs[1]):
                score, length = struct.unpack_from("<fI", data, at)
                if at + 8 + length > len(data):
                    raise DataError("the vocabulary is cut off", where=str(path))
                scores.append(score)
                pieces.append(data[at + 8 : at + 8 + length])
                at += 8 + length
            return cls(pieces, scores, bos=pairs[3], add_bos=pairs.get(10, 1) == 1)
        except (KeyError, struct.error) as error:
            raise DataError(f"the tokenizer is incomplete: {error}", where=str(path)) from error

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text` as `Tokenizer::encode(text, isStart=true, addSpecialTokens=true)` does.

        Raises:
            ConfigurationError: the vocabulary cannot write the text (the program would abort).
        """
        data = text.encode()
        tokens = [self.bos] if self.add_bos and self.bos >= 0 else []
        pending = b""
        at = 0
        while at < len(data):
            special = self._special_at(data, at)
            if special is not None:
                tokens.append(special)
                at += len(self.pieces[special])
                continue
            pending += data[at : at + 1]
            at += 1
            if (token := self._regular.get(pending)) is not None:
                tokens.append(token)
                pending = b""
        if pending:
            raise ConfigurationError("the vocabulary cannot write this text", where=text[:40])
        return self._merge(tokens)

    def _special_at(self, data: bytes, at: int) -> int | None:
        for token in range(self.bos, len(self.pieces)):
            if self.pieces[token] and data.startswith(self.pieces[token], at):
                return token
        return None

    def _merge(self, tokens: list[int]) -> list[int]:
        while True:
            best: tuple[float, int, int] | None = None
            for index in range(len(tokens) - 1):
                merged = self._regular.get(self.pieces[tokens[index]] + self.pieces[tokens[index + 1]])
                if merged is not None and (best is None or self.scores[merged] > best[0]):
                    best = (self.scores[merged], index, merged)
            if best is None:
                return tokens
            tokens[best[1] : best[1] + 2] = [best[2]]

    def text_of_length(self, text: str, n_tokens: int) -> str:
        """Return `text`, cut or repeated, so that it has exactly `n_tokens` tokens.

        Raises:
            ConfigurationError: no cut of the text gives that number.
        """
        return cut_to_length(text, n_tokens, lambda candidate: len(self.encode(candidate)))


def cut_to_length(text: str, n_tokens: int, count: Callable[[str], int]) -> str:
    """Return a beginning of the endlessly repeated `text` that has, by `count`, exactly `n_tokens` tokens.

    The count grows with the length but for small dips at merges: bisection finds the neighbourhood, a scan the cut.

    Raises:
        ConfigurationError: there is no such cut.
    """
    if not text:
        raise ConfigurationError("an empty prompt cannot be repeated")
    endless = text
    while count(endless) < n_tokens + 16:
        endless += text if len(endless) > 256 else text * 8
    low, high = 1, len(endless)
    while low < high:
        middle = (low + high) // 2
        if count(endless[:middle]) < n_tokens:
            low = middle + 1
        else:
            high = middle
    for length in sorted(range(max(1, low - 64), min(len(endless), low + 64)), key=lambda at: abs(at - low)):
        if count(endless[:length]) == n_tokens:
            return endless[:length]
    raise ConfigurationError(f"no cut of the prompt has exactly {n_tokens} tokens", where=text[:40])
