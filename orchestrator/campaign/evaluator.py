"""Evaluating measured runs: kept on disk first, then counted, their trace read, their results written and journaled.

From the moment a run is kept it is not lost: while the bridge is away or the disk is full its attempt stays open, also
over a restart, and is evaluated when they are back. Only what the trace itself says ends the attempt: that it does not
carry the windows, or that the data do not fit. Not here: how a trace is read (`trace`), what is calculated
(`evaluation`).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from orchestrator.benchmarks.records import SuiteResult, WindowAnswers
from orchestrator.campaign.attempt_ends import AttemptEnds
from orchestrator.campaign.evaluation import evaluate, figures_of
from orchestrator.campaign.patience import Patience
from orchestrator.campaign.pending import PendingEvaluation, PendingEvaluations
from orchestrator.campaign.recovery import StopRequestedError
from orchestrator.campaign.trace import TraceReading, TraceUnreadError
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.results.files import run_files, write_run
from orchestrator.store.journal import Journal
from orchestrator.store.records import RunFigures
from shared.files.atomic import atomic_write
from shared.kernel.errors import EpiError, Fault, StorageError
from shared.kernel.records import CampaignId

_LAST_WORD_S = 5.0


def stays_open(error: BaseException) -> bool:
    """Tell whether a run is still to be evaluated after this error: nothing is wrong with what it measured."""
    return isinstance(error, TraceUnreadError | StorageError | StopRequestedError | asyncio.CancelledError)


class Evaluator:
    """Evaluates the measured runs of one campaign.

    Attributes:
        writing: Held while results are written and journaled.
    """

    def __init__(
        self,
        journal: Journal,
        campaign: CampaignId,
        campaign_dir: Path,
        pending: PendingEvaluations,
        trace: TraceReading,
        patience: Patience,
        is_stop_requested: Callable[[], Awaitable[bool]],
        count: Callable[[WindowAnswers], Awaitable[SuiteResult]],
        ends: AttemptEnds,
    ) -> None:
        """`count` counts answers whose suite's process died before it had."""
        self._journal = journal
        self._campaign = campaign
        self._campaign_dir = campaign_dir
        self._pending = pending
        self._trace = trace
        self._patience = patience
        self._is_stop_requested = is_stop_requested
        self._count = count
        self._ends = ends
        self.writing = asyncio.Lock()

    async def take(self, pending: PendingEvaluation, counting: Awaitable[SuiteResult] | None) -> None:
        """Keep a run that was just measured, then evaluate it; `counting` counts its answers meanwhile.

        Raises:
            EpiError: as `evaluate`.
        """
        keeping = asyncio.create_task(
            self._patience.results(lambda: self._pending.keep(pending), self._is_stop_requested)
        )
        try:
            await asyncio.shield(keeping)
        except asyncio.CancelledError:
            await asyncio.wait((keeping,), timeout=_LAST_WORD_S)  # so that a stop in order loses nothing
            keeping.cancel()
            raise
        except StorageError as error:
            await self._end(pending.run.reference, pending.run.attempt, str(error), error.fault)
            raise
        await self.evaluate(pending, counting)

    async def evaluate(self, pending: PendingEvaluation, counting: Awaitable[SuiteResult] | None = None) -> None:
        """Count a kept run's answers, read its trace, write its results and end its attempt.

        Without `counting`, answers that are not counted yet are counted anew from what is kept.

        Raises:
            EpiError: the attempt has ended with its reason, unless `stays_open`: then it is evaluated later.
        """
        run, number = pending.run.reference, pending.run.attempt
        await self._journal.append(self._campaign, kind="intent", run=run, attempt=number, step="evaluate")
        async with self.writing:
            try:
                if pending.uncounted is not None:
                    pending = await self._counted(pending, counting or self._count(pending.uncounted))
                figures = await self._patience.written(lambda: self._write(pending), self._is_stop_requested)
            except BaseException as error:
                if not stays_open(error):
                    fault: Fault = error.fault if isinstance(error, EpiError) else "bug"
                    reason = str(error) if isinstance(error, EpiError) else f"{type(error).__name__}: {error}"
                    await self._end(run, number, reason, fault)
                raise
            payload = figures.model_dump(mode="json")
            await self._journal.append(self._campaign, kind="result", run=run, step="evaluate", payload=payload)
        await self._journal.end_attempt(self._campaign, run, number, "done")
        self._pending.forget(run, number)

    async def _counted(self, pending: PendingEvaluation, counting: Awaitable[SuiteResult]) -> PendingEvaluation:
        """Return the run with its questions, which are kept too: they need no suite any more."""
        counted = pending.with_counted(await counting)
        await self._patience.results(lambda: self._pending.keep(counted), self._is_stop_requested)
        return counted

    async def _write(self, pending: PendingEvaluation) -> RunFigures:
        reference = pending.run.reference
        async with _atomic(run_files(self._campaign_dir, reference)["power_trace"]) as trace_file:
            start, end = pending.trace_start_utc_ns, pending.trace_end_utc_ns
            window = await self._trace.to_file(reference, start, end, trace_file)
            run, evaluated = await asyncio.to_thread(evaluate, pending, window, trace_file)
        await asyncio.to_thread(write_run, self._campaign_dir, run, evaluated, pending.questions, pending.sample)
        return figures_of(run, evaluated.evaluation)

    async def _end(self, run: RunReference, number: int, reason: str, fault: Fault) -> None:
        await self._ends.end(run, number, "failed", reason=reason, fault=fault)
        self._pending.forget(run, number)


@asynccontextmanager
async def _atomic(target: Path) -> AsyncIterator[Path]:
    """`atomic_write` of a large file: what syncs it to the disk runs in a thread."""
    manager = atomic_write(target)
    await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
    beside = await asyncio.to_thread(manager.__enter__)
    try:
        yield beside
    except BaseException as error:
        await asyncio.to_thread(manager.__exit__, type(error), error, error.__traceback__)
        raise
    await asyncio.to_thread(manager.__exit__, None, None, None)
