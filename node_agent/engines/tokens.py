"""Texts to token ids exactly as lm-eval does it, so that scores are comparable with its own backends.

Not here: what is evaluated when (scoring).
"""

from collections.abc import Callable
from dataclasses import dataclass

from shared.kernel.errors import DataError
from shared.llama.model import Model, api

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class ScoredPair:
    """Token ids of one context and one continuation; the model reads all but the last id."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """What is evaluated: the logits at `len(context) - 1 + t` predict `continuation[t]`."""
        return self.context + self.continuation[:-1]


class Tokenizer:
    """Encodes as Hugging Face tokenizers do by default: special tokens in the text are recognised, BOS where due."""

    def __init__(self, model: Model) -> None:
        lib = api()
        self._model = model
        adds_bos = bool(lib.llama_vocab_get_add_bos(model.vocab))
        bos, eos = int(lib.llama_vocab_bos(model.vocab)), int(lib.llama_vocab_eos(model.vocab))
        self.start_token = bos if adds_bos else eos  # what stands in for an empty context
        self._bos_text = model.piece(bos, special=True).decode("utf-8", "replace") if adds_bos else ""

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Return the ids of `text`, with BOS if the model wants it and the text does not begin with it already."""
        add = special and not (self._bos_text and text.startswith(self._bos_text))
        return self._model.tokenize(text, add_special=add, parse_special=True)

    def pair(self, context: str, continuation: str, context_ids: list[int] | None = None) -> ScoredPair:
        """Encode a pair as lm-eval's `TemplateLM._encode_pair` and `loglikelihood` do.

        Trailing spaces of the context move to the continuation; both are encoded together and split at the length of
        the context's own encoding. `context_ids` may give the encoding of `split_spaces(context)[0]`, to save time.

        Raises:
            DataError: nothing is left to score.
        """
        if not context:
            ids = self.encode(continuation, special=False)
            if ids and ids[0] == self.start_token:
                pair = ScoredPair(tuple(ids[:1]), tuple(ids[1:]))
            else:
                pair = ScoredPair((self.start_token,), tuple(ids))
        else:
            head, spaces = split_spaces(context)
            if context_ids is None:
                context_ids = self.encode(head)
            whole = self.encode(head + spaces + continuation)
            pair = ScoredPair(tuple(context_ids), tuple(whole[len(context_ids) :]))
        if not pair.continuation:
            raise DataError(f"the continuation {continuation!r} has no token of its own", where=context[-40:])
        if not pair.context:
            raise DataError("the context has no token", where=repr(context[:40]))
        return pair


def split_spaces(context: str) -> tuple[str, str]:
    """Return the context without its trailing white space, and that white space."""
    head = context.rstrip()
    return head, context[len(head) :]
