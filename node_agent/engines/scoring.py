"""Log-likelihood scoring with shared prefixes evaluated once.

The tokens that all questions of a group share are evaluated once, in sequence 0; further sequences share those cache
cells. Of one question, the tokens that all its continuations share are evaluated once too, as tokens of several
sequences. Several questions go into one batch. Logits are asked for only where a continuation token is predicted.

Not here: tokenising (tokens), fixed workloads (workloads), the socket (llama_engine).

Ledger: `prompt` + `cached` is the number of input tokens that one pass a continuation would evaluate; `prompt` is what
was evaluated. The group's shared prefix is charged to its first question.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from node_agent.engines.tokens import ScoredPair, Tokenizer, split_spaces
from shared.kernel.clock import utc_ns
from shared.kernel.errors import ConfigurationError
from shared.kernel.progress import Progress
from shared.kernel.records import TokenLedger
from shared.llama.model import Context
from shared.wire.node_jobs.workloads import ItemScore, ScoreGroup, ScoreItem, ScoreParams, ScoreResult

"""Called between batches with (fraction done, message); raises to stop."""


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Return how many leading ids all rows share."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False)))


@dataclass(frozen=True)
class Cell:
    """One token to evaluate: which of the question's sequences share it, and (continuation, id) pairs it predicts."""

    token: int
    position: int
    sequences: tuple[int, ...]
    predicts: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ItemPlan:
    """The cells of one question after the group's prefix; sequences are numbered from 0 within the question."""

    cells: tuple[Cell, ...]
    n_sequences: int
    n_inputs: int
    n_scored: int
    n_continuations: int


def plan_item(pairs: Sequence[ScoredPair], prefix: int) -> ItemPlan:
    """Lay out a question: the tokens its continuations share, then each different remainder once.

    Args:
        pairs: one per continuation; all have the same context.
        prefix: leading tokens already in the cache; smaller than the context, whose last token must be evaluated.
    """
    inputs = [pair.inputs for pair in pairs]
    shared = common_prefix(inputs)
    first = len(pairs[0].context) - 1
    branches: dict[tuple[int, ...], int] = {}
    for row in inputs:
        if len(row) > shared:
            branches.setdefault(row[shared:], len(branches))
    predicts: dict[tuple[int, int], list[tuple[int, int]]] = {}  # (branch or -1, position) -> [(continuation, id)]
    for number, (pair, row) in enumerate(zip(pairs, inputs, strict=True)):
        for step, token in enumerate(pair.continuation):
            branch = -1 if first + step < shared else branches[row[shared:]]
            predicts.setdefault((branch, first + step), []).append((number, token))
    n_sequences = max(1, len(branches))
    everyone = tuple(range(n_sequences))
    cells = [
        Cell(inputs[0][at], at, everyone, tuple(predicts.get((-1, at), ()))) for at in range(prefix, shared)
    ]  # fmt: skip
    for tokens, branch in branches.items():
        cells += [
            Cell(token, at, (branch,), tuple(predicts.get((branch, at), ())))
            for at, token in enumerate(tokens, start=shared)
        ]
    return ItemPlan(
        cells=tuple(cells), n_sequences=n_sequences, n_inputs=sum(map(len, inputs)),
        n_scored=sum(len(pair.continuation) for pair in pairs), n_continuations=len(pairs),
    )  # fmt: skip


@dataclass
class _Pending:
    """A question on its way: where its scores are gathered."""

    plan: ItemPlan
    log_likelihoods: list[float] = field(init=False)
    greedy: list[bool] = field(init=False)

    def __post_init__(self) -> None:
        self.log_likelihoods = [0.0] * self.plan.n_continuations
        self.greedy = [True] * self.plan.n_continuations

    def read(self, cell: Cell, logits: npt.NDArray[np.float32]) -> None:
        """Add what one cell's logits say about the tokens it predicts; float64 throughout."""
        values = logits.astype(np.float64)
        highest = float(values.max())
        log_sum = highest + float(np.log(np.exp(values - highest).sum()))
        best = int(values.argmax())
        for number, token in cell.predicts:
            self.log_likelihoods[number] += float(values[token]) - log_sum
            self.greedy[number] = self.greedy[number] and best == token


class Scorer:
    """Scores groups of questions on one context; the context's cache belongs to it while it runs."""

    def __init__(
        self, context: Context, tokenizer: Tokenizer, *, context_tokens: int, sequences: int, most_outputs: int
    ) -> None:
        self._context = context
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._sequences = sequences
        self._most_outputs = most_outputs

    def score(self, params: ScoreParams, tick: Progress) -> ScoreResult:
        """Score all groups, starting from an empty cache.

        Raises:
            ConfigurationError: a question does not fit the cache or the number of sequences.
        """
        start = utc_ns()
        total = sum(len(group.items) for group in params.groups)
        done = 0
        groups: list[tuple[ItemScore, ...]] = []

        def report() -> None:
            tick(done / max(total, 1), f"{done} of {total} questions")

        for group in params.groups:
            scores: list[ItemScore] = []
            for score in self._score_group(group, report):
                scores.append(score)
                done += 1
            groups.append(tuple(scores))
        ledger = sum((score.ledger for scores in groups for score in scores), TokenLedger())
        self._context.clear()
        return ScoreResult(start_utc_ns=start, end_utc_ns=utc_ns(), ledger=ledger, groups=tuple(groups))

    def _score_group(self, group: ScoreGroup, tick: Callable[[], None]) -> Iterator[ItemScore]:
        if not group.items:
            return
        start = utc_ns()
        pairs = [self._encode(group.prefix, item) for item in group.items]
        # The last context token stays out of the prefix: its logits predict each question's first token.
        prefix = min(
            common_prefix([pair.inputs for item in pairs for pair in item]),
            min(len(item[0].context) - 1 for item in pairs),
        )
        plans = [plan_item(item, prefix) for item in pairs]
        for number, plan in enumerate(plans):
            self._check_fit(plan, prefix, number)
        self._context.clear()
        self._evaluate_prefix(pairs[0][0].inputs[:prefix], tick)
        for number, batch in enumerate(self._batches(plans, prefix)):
            begin = start if number == 0 else utc_ns()
            for item in self._evaluate(batch, prefix, tick):
                charged, start_of = (prefix, start) if item is batch[0] and number == 0 else (0, begin)
                evaluated = len(item.plan.cells) + charged
                yield ItemScore(
                    log_likelihoods=tuple(item.log_likelihoods), greedy=tuple(item.greedy),
                    ledger=TokenLedger(
                        prompt=evaluated, cached=item.plan.n_inputs - evaluated, scored=item.plan.n_scored
                    ),
                    start_utc_ns=start_of, end_utc_ns=utc_ns(),
                )  # fmt: skip

    def _encode(self, prefix: str, item: ScoreItem) -> list[ScoredPair]:
        context = prefix + item.suffix
        ids = self._tokenizer.encode(split_spaces(context)[0]) if context else None
        return [self._tokenizer.pair(context, continuation, ids) for continuation in item.continuations]

    def _check_fit(self, plan: ItemPlan, prefix: int, number: int) -> None:
        needed = prefix + len(plan.cells)
        if needed > self._context_tokens:
            raise ConfigurationError(
                f"the question needs {needed} cache tokens, the engine has {self._context_tokens}",
                where=f"item {number} of its group", hint="start the engine with more context_tokens",
            )  # fmt: skip
        if plan.n_sequences > self._sequences - 1:
            raise ConfigurationError(
                f"the question needs {plan.n_sequences} parallel sequences, the engine has {self._sequences - 1}",
                where=f"item {number} of its group", hint="start the engine with more sequences",
            )  # fmt: skip

    def _batches(self, plans: Sequence[ItemPlan], prefix: int) -> Iterator[list[_Pending]]:
        """Fill batches with whole questions as far as tokens, cache and sequences allow."""
        room = min(self._context.batch_tokens, self._context_tokens - prefix)
        batch: list[_Pending] = []
        cells = sequences = 0
        for plan in plans:
            full = cells + len(plan.cells) > room or sequences + plan.n_sequences > self._sequences - 1
            if batch and full:
                yield batch
                batch, cells, sequences = [], 0, 0
            batch.append(_Pending(plan))
            cells += len(plan.cells)
            sequences += plan.n_sequences
        yield batch

    def _evaluate_prefix(self, tokens: Sequence[int], tick: Callable[[], None]) -> None:
        step = self._context.batch_tokens
        for at in range(0, len(tokens), step):
            tick()
            chunk = tokens[at : at + step]
            self._context.decode(chunk, range(at, at + len(chunk)), 0, False)
        for sequence in range(1, self._sequences):
            self._context.copy_sequence(0, sequence)

    def _evaluate(self, batch: list[_Pending], prefix: int, tick: Callable[[], None]) -> list[_Pending]:
        queue: list[tuple[_Pending, Cell, tuple[int, ...]]] = []
        offset = 1
        for item in batch:
            for cell in item.plan.cells:
                queue.append((item, cell, tuple(offset + sequence for sequence in cell.sequences)))
            offset += item.plan.n_sequences
        for chunk in self._chunks(queue):
            tick()
            self._context.decode(
                [cell.token for _, cell, _ in chunk], [cell.position for _, cell, _ in chunk],
                [ids for _, _, ids in chunk], [bool(cell.predicts) for _, cell, _ in chunk],
            )  # fmt: skip
            for row, (item, cell, _) in enumerate(chunk):
                if cell.predicts:
                    item.read(cell, self._context.logits(row))
        for sequence in range(1, offset):
            self._context.remove(sequence, prefix)
        return batch

    def _chunks(
        self, queue: list[tuple[_Pending, Cell, tuple[int, ...]]]
    ) -> Iterator[list[tuple[_Pending, Cell, tuple[int, ...]]]]:
        """Cut the queue so that neither the batch size nor the room for logits is exceeded."""
        chunk: list[tuple[_Pending, Cell, tuple[int, ...]]] = []
        outputs = 0
        for entry in queue:
            wants = bool(entry[1].predicts)
            if len(chunk) == self._context.batch_tokens or outputs + wants > self._most_outputs:
                yield chunk
                chunk, outputs = [], 0
            chunk.append(entry)
            outputs += wants
        yield chunk
