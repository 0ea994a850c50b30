"""Greedy generation of texts for benchmarks that judge what a model writes; a shared beginning is evaluated once.

Not here: the fixed decode workload (workloads), scoring by log-likelihood (scoring).
"""

from collections.abc import Callable, Sequence

from node_agent.engines.scoring import common_prefix
from node_agent.engines.tokens import Tokenizer
from shared.kernel.clock import utc_ns
from shared.kernel.errors import ConfigurationError
from shared.kernel.progress import Progress
from shared.kernel.records import TokenLedger
from shared.llama.model import Context, Model
from shared.wire.node_jobs.workloads import GeneratedText, GenerateItem, GenerateParams, GenerateResult, StopReason


def cut_at_stop(text: str, until: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the first stop string, and whether there was one."""
    found = [at for at in (text.find(stop) for stop in until if stop) if at >= 0]
    return (text[: min(found)], True) if found else (text, False)


class Generator:
    """Generates on one context; the context's cache belongs to it while it runs."""

    def __init__(self, model: Model, context: Context, tokenizer: Tokenizer, *, context_tokens: int) -> None:
        self._model = model
        self._context = context
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._cached: list[int] = []

    def generate(self, params: GenerateParams, tick: Progress) -> GenerateResult:
        """Answer each item greedily, in order, starting from an empty cache.

        Raises:
            ConfigurationError: a prompt and its answer do not fit the cache.
        """
        self._context.clear()
        self._cached = []
        start = utc_ns()
        texts: list[GeneratedText] = []

        def report() -> None:
            tick(len(texts) / len(params.items), f"{len(texts)} of {len(params.items)} texts")

        for item in params.items:
            texts.append(self._answer(item, report))
        end = utc_ns()
        self._context.clear()
        ledger = sum((text.ledger for text in texts), TokenLedger())
        return GenerateResult(start_utc_ns=start, end_utc_ns=end, ledger=ledger, texts=tuple(texts))

    def _answer(self, item: GenerateItem, tick: Callable[[], None]) -> GeneratedText:
        start = utc_ns()
        ids = self._tokenizer.encode(item.prompt)
        if not ids:
            raise ConfigurationError("the prompt has no token")
        if len(ids) + item.max_tokens > self._context_tokens:
            raise ConfigurationError(
                f"prompt and answer need {len(ids) + item.max_tokens} cache tokens,"
                f" the engine has {self._context_tokens}",
                hint="start the engine with more context_tokens",
            )
        kept = min(common_prefix([self._cached, ids]), len(ids) - 1)  # the last token's logits are needed
        self._context.remove(0, kept)
        self._cached = ids
        step = self._context.batch_tokens
        for at in range(kept, len(ids), step):
            tick()
            chunk = ids[at : at + step]
            wanted = [False] * (len(chunk) - 1) + [at + len(chunk) == len(ids)]
            self._context.decode(chunk, range(at, at + len(chunk)), 0, wanted)
            row = len(chunk) - 1
        reason: StopReason = "length"
        written, text, count = b"", "", 0
        while count < item.max_tokens:
            tick()
            token = int(self._context.logits(row).argmax())
            count += 1
            if self._model.is_end(token):
                reason = "end"
                break
            written += self._model.piece(token)
            text, stopped = cut_at_stop(written.decode("utf-8", "ignore"), item.until)
            if stopped:
                reason = "until"
                break
            if count < item.max_tokens:
                self._context.decode([token], [len(ids) + count - 1], 0, True)
                row = 0
        ledger = TokenLedger(generated=count, prompt=len(ids) - kept, cached=kept)
        return GeneratedText(text=text, stopped=reason, ledger=ledger, start_utc_ns=start, end_utc_ns=utc_ns())
