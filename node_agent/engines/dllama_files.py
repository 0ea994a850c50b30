"""The two files distributed-llama reads: the model's header (.m) and the tokenizer (.t).

Here: what the engine must know before it starts, and how many tokens a prompt has, since `dllama` takes texts and
counts of positions only. Not here: the formats themselves (`shared.checkpoints.dllama`, `.dllama_tokenizer`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from shared.checkpoints import dllama_tokenizer
from shared.checkpoints.dllama import read_header
from shared.kernel.errors import ConfigurationError, DataError

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
        file = dllama_tokenizer.parse(path)
        return cls(list(file.pieces), list(file.scores), bos=file.bos, add_bos=file.adds_bos)

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
