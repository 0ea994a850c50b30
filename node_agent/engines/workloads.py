"""Fixed workloads with exact token counts: prefill and decode.

Not here: scoring, the socket, anything about power.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from node_agent.engines.tokens import Tokenizer
from shared.kernel.clock import utc_ns
from shared.kernel.errors import ConfigurationError
from shared.kernel.progress import Progress
from shared.kernel.records import TokenLedger
from shared.llama.model import Context
from shared.wire.node_jobs.workloads import DecodeParams, PrefillParams, RequestRecord, WorkloadResult


def fit_length(tokens: Sequence[int], length: int) -> list[int]:
    """Return the tokens cut or repeated from the start to exactly `length`."""
    return [tokens[at % len(tokens)] for at in range(length)]


class Workloads:
    """Runs fixed workloads on one context; the context's cache belongs to it while it runs."""

    def __init__(self, context: Context, tokenizer: Tokenizer, *, context_tokens: int, sequences: int) -> None:
        self._context = context
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._sequences = sequences

    def prefill(self, params: PrefillParams, tick: Progress) -> WorkloadResult:
        """Evaluate each prompt at exactly `tokens_each` tokens, with an empty cache each time.

        Raises:
            ConfigurationError: the prompts do not fit the cache.
        """
        self._need(params.tokens_each)
        prompts = [fit_length(ids, params.tokens_each) for ids in self._encode(params.prompts)]
        total = len(prompts) * params.repeats
        requests: list[RequestRecord] = []
        start = utc_ns()
        for number in range(total):
            begin = utc_ns()
            self._context.clear()
            self._evaluate(prompts[number % len(prompts)], 0, lambda: tick(number / total, f"{number} of {total}"))  # noqa: B023
            ledger = TokenLedger(prompt=params.tokens_each)
            requests.append(RequestRecord(start_utc_ns=begin, end_utc_ns=utc_ns(), ledger=ledger))
        end = utc_ns()
        self._context.clear()
        return _result(start, end, requests, None)

    def decode(self, params: DecodeParams, tick: Progress) -> WorkloadResult:
        """Generate exactly `tokens_each` tokens greedily after each prompt, one stream at a time.

        All of every prompt but its last token is in the cache before `start_utc_ns`; that last token is the first
        one evaluated inside, so that N generated tokens cost N evaluations. The ledger says so: prompt 1 a request.

        Raises:
            ConfigurationError: the prompts do not fit the cache or the number of sequences.
        """
        prompts = self._encode(params.prompts)
        self._need(sum(map(len, prompts)) + params.tokens_each, sequences=len(prompts) + 1)
        self._context.clear()
        for sequence, tokens in enumerate(prompts, start=1):
            self._evaluate(tokens[:-1], sequence, lambda: tick(0.0, "evaluating the prompts"), logits=False)
        total = len(prompts) * params.repeats
        requests: list[RequestRecord] = []
        output = hashlib.sha256()
        start = utc_ns()
        for number in range(total):
            begin = utc_ns()
            tokens = prompts[number % len(prompts)]
            output.update(self._generate(tokens, 1 + number % len(prompts), params.tokens_each, number, total, tick))
            ledger = TokenLedger(generated=params.tokens_each, prompt=1, cached=len(tokens) - 1)
            requests.append(RequestRecord(start_utc_ns=begin, end_utc_ns=utc_ns(), ledger=ledger))
        end = utc_ns()
        self._context.clear()
        return _result(start, end, requests, output.hexdigest())

    def _generate(self, prompt: list[int], source: int, count: int, number: int, total: int, tick: Progress) -> bytes:
        """Continue a copy of `source` in sequence 0; return the generated ids as little-endian int32."""
        self._context.remove(0)
        self._context.copy_sequence(source, 0)
        token, ids = prompt[-1], np.empty(count, "<i4")
        for step in range(count):
            tick((number + step / count) / total, f"{number} of {total}")
            self._context.decode([token], [len(prompt) - 1 + step], 0, True)
            token = int(self._context.logits(0).argmax())
            ids[step] = token
        return ids.tobytes()

    def _evaluate(self, tokens: Sequence[int], sequence: int, tick: Callable[[], None], *, logits: bool = True) -> None:
        step = self._context.batch_tokens
        for at in range(0, len(tokens), step):
            tick()
            chunk = tokens[at : at + step]
            wanted = [False] * len(chunk)
            wanted[-1] = logits and at + len(chunk) == len(tokens)
            self._context.decode(chunk, range(at, at + len(chunk)), sequence, wanted)

    def _encode(self, prompts: Sequence[str]) -> list[list[int]]:
        encoded = [self._tokenizer.encode(prompt) for prompt in prompts]
        for number, ids in enumerate(encoded):
            if not ids:
                raise ConfigurationError("the prompt has no token", where=f"prompts.{number}")
        return encoded

    def _need(self, tokens: int, *, sequences: int = 1) -> None:
        if tokens > self._context_tokens:
            raise ConfigurationError(
                f"the workload needs {tokens} cache tokens, the engine has {self._context_tokens}",
                hint="start the engine with more context_tokens",
            )
        if sequences > self._sequences:
            raise ConfigurationError(
                f"the workload needs {sequences} sequences, the engine has {self._sequences}",
                hint="use fewer prompts or start the engine with more sequences",
            )


def _result(start: int, end: int, requests: list[RequestRecord], output_sha256: str | None) -> WorkloadResult:
    ledger = sum((request.ledger for request in requests), TokenLedger())
    return WorkloadResult(
        start_utc_ns=start, end_utc_ns=end, ledger=ledger, requests=tuple(requests), output_sha256=output_sha256
    )
