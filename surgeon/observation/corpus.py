"""Calibration text: domains, and the windows of tokens it is cut into."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.regular_files import RECORDS_BYTES, read_text
from shared.llama import model as llama


@dataclass(frozen=True)
class Corpus:
    """Texts by domain, and the hash of all of them."""

    texts: dict[str, str]
    sha256: str


@dataclass(frozen=True)
class Window:
    """One evaluation: at most `window_tokens` tokens of one domain, seen with an empty cache."""

    number: int
    domain: str
    tokens: npt.NDArray[np.int32]


def load_corpus(paths: Sequence[Path]) -> Corpus:
    """Read UTF-8 text files; each is a domain, named by its stem.

    Raises:
        ConfigurationError: no file, a file that is not there, or two with one stem.
        DataError: not UTF-8, or empty.
    """
    texts: dict[str, str] = {}
    if not paths:
        raise ConfigurationError("a corpus needs at least one text file")
    for path in sorted(paths, key=lambda path: path.stem):
        if path.stem in texts:
            raise ConfigurationError("two files of the corpus have one stem, which names the domain", where=str(path))
        try:
            texts[path.stem] = read_text(path, RECORDS_BYTES)
        except OSError as error:
            raise ConfigurationError(f"cannot read it: {error.strerror}", where=str(path)) from error
        except UnicodeDecodeError as error:
            raise DataError("not UTF-8", where=str(path)) from error
        if not texts[path.stem].strip():
            raise DataError("no text in it", where=str(path))
    digest = hashlib.sha256()
    for name, text in texts.items():
        data = text.encode()
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return Corpus(texts, digest.hexdigest())


def windows(model: llama.Model, corpus: Corpus, window_tokens: int, max_tokens: int | None = None) -> list[Window]:
    """Cut every domain into windows; with `max_tokens`, no domain gives more than its equal share of them."""
    share = None if max_tokens is None else max(max_tokens // len(corpus.texts), 1)
    result: list[Window] = []
    for domain, text in corpus.texts.items():
        tokens = np.asarray(model.tokenize(text)[:share], np.int32)
        for begin in range(0, len(tokens), window_tokens):
            result.append(Window(len(result), domain, tokens[begin : begin + window_tokens]))
    return result
