"""Bringing all runs home: variant, attempt, evaluation; faults decide about another try.

The cluster never waits for the evaluation: while one run's answers and trace are evaluated, the next one's model is
brought and loaded. Its first window waits until the evaluation is done, so that nothing else runs inside a window.
Infrastructure faults are tried again up to `max_attempts` since the campaign was last set running; configuration and
data faults never. The count is the journal's, so that a restart of the orchestrator changes nothing.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from orchestrator.campaign.attempt import AttemptRunner
from orchestrator.campaign.attempt_ends import AttemptEnds
from orchestrator.campaign.evaluation import ResultWriter
from orchestrator.campaign.evaluator import Evaluator, stays_open
from orchestrator.campaign.measured import AttemptPlace, ClosedWindows
from orchestrator.campaign.pipeline import VariantPipeline
from orchestrator.campaign.recovery import Recovery
from orchestrator.campaign.safekeeping import JournalKeeper
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.schedule import PlannedRun
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.domain.campaign.states import AttemptOutcome
from orchestrator.store.journal import Journal
from shared.kernel.errors import EpiError, InfrastructureError
from shared.service.logs import log_fields


@dataclass(frozen=True)
class _UnderEvaluation:
    """A run whose windows are closed and whose evaluation is under way."""

    planned: PlannedRun
    task: asyncio.Task[None]


class _HeldUpError(Exception):
    """The run before could not be evaluated yet, so that this one may not begin its windows."""


class RunLoop:
    """The runs of one campaign."""

    def __init__(
        self,
        *,
        journal: Journal,
        spec: CampaignSpec,
        attempts: AttemptRunner,
        writer: ResultWriter,
        variants: VariantPipeline,
        recovery: Recovery,
        evaluator: Evaluator,
        check_stop_requested: Callable[[], Awaitable[None]],
        publish_step: Callable[[RunReference, str], None],
        keeper: JournalKeeper,
        ends: AttemptEnds,
    ) -> None:
        self._journal = journal
        self._spec = spec
        self._attempts = attempts
        self._writer = writer
        self._variants = variants
        self._recovery = recovery
        self._evaluator = evaluator
        self._check_stop_requested = check_stop_requested
        self._publish_step = publish_step
        self._keeper = keeper
        self._ends = ends
        self._left: deque[PlannedRun] = deque()
        self._evaluating: _UnderEvaluation | None = None
        self._unfit: dict[RunReference, str] = {}

    async def run_all(self, order: Sequence[PlannedRun]) -> dict[RunReference, str]:
        """Bring every run of `order` to its end; return run -> why for those that cannot be measured.

        Raises:
            InfrastructureError: `max_attempts` attempts broke, or the bridge is away and keeps the trace of a measured
                run to itself; the campaign stops, to be resumed when it is mended.
            DataError: the journal is damaged.
            Exception: whatever `check_stop_requested` raises when somebody asks to stop; the present run is home then.
        """
        self._left.extend([planned for planned in order if not await self._is_evaluated(planned)])
        try:
            while self._left or self._evaluating:
                coming = None
                if self._left:
                    await self._check_stop_requested()
                    coming = await self._measure(self._left.popleft())
                arriving, self._evaluating = self._evaluating, coming
                if arriving is not None:
                    await self._arrive(arriving)
                    await self._keeper.keep()  # no window is open: the next attempt has not begun
        except asyncio.CancelledError:
            if self._evaluating is not None:
                self._evaluating.task.cancel()
            raise
        finally:
            if self._evaluating is not None:  # its attempt tells how it ended
                await asyncio.gather(self._evaluating.task, return_exceptions=True)
        return self._unfit

    async def _is_evaluated(self, planned: PlannedRun) -> bool:
        return await self._journal.last_result(self._spec.id, planned.run, "evaluate") is not None

    async def _measure(self, planned: PlannedRun) -> _UnderEvaluation | None:
        """Make one attempt up to the end of its last window; None when it broke or the run is unfit."""
        if (unfit := await self._recover(planned.run)) is not None:
            self._unfit[planned.run] = unfit
            return None
        self._publish_step(planned.run, "plan")
        try:
            variant = await self._variants.get(planned.configuration)
        except InfrastructureError:
            raise
        except EpiError as error:
            self._unfit[planned.run] = str(error)
            return None
        number = await self._journal.begin_attempt(self._spec.id, planned.run)
        place = self._attempts.place(planned, number)
        try:
            async with self._explained(place):
                await self._recovery.stop_leftovers()
                loaded = await self._attempts.load(place, variant)
                if self._evaluating is not None:
                    await self._wait_for_evaluation(self._evaluating.task)
                closed = await self._attempts.measure(loaded)
        except (EpiError, _HeldUpError):
            self._left.appendleft(planned)
            return None
        return _UnderEvaluation(planned, asyncio.create_task(self._evaluate(closed)))

    @staticmethod
    async def _wait_for_evaluation(task: asyncio.Task[None]) -> None:
        """Wait until the run before is evaluated, or its attempt has ended.

        Raises:
            _HeldUpError: it is still to be evaluated, and the campaign is about to stop for that.
        """
        await asyncio.wait((task,))
        error = task.exception()
        if error is not None and (stays_open(error) or not isinstance(error, EpiError)):
            raise _HeldUpError

    async def _evaluate(self, closed: ClosedWindows) -> None:
        async with self._explained(closed.loaded.place):
            pending = self._writer.pending(self._attempts.gather(closed))
        await self._evaluator.take(pending, None if closed.score is None else closed.score.scoring)

    async def _arrive(self, evaluating: _UnderEvaluation) -> None:
        try:
            await evaluating.task
        except EpiError as error:
            if stays_open(error):
                raise
            self._left.appendleft(evaluating.planned)

    async def _recover(self, run: RunReference) -> str | None:
        """Judge by the journal whether a run may have another attempt, and wait until the lab is fit for it.

        Returns why the run cannot be measured, None when it may be tried.

        Raises:
            InfrastructureError: it broke too often, or the lab did not come back.
        """
        ended = await self._journal.since_running(self._spec.id, run, "", "attempt")
        broken = [one for one in ended if one.get("fault")]  # an orchestrator stopped in order is nobody's fault
        for one in broken:
            if one["fault"] != "infrastructure":
                return str(one["reason"])
        if not broken:
            return None
        why = str(broken[-1]["reason"])
        if len(broken) >= self._spec.max_attempts:
            raise InfrastructureError(
                f"{run} broke {len(broken)} times, last: {why}", hint="mend it, then `epi campaign resume`"
            )
        try:
            await self._recovery.wait_for_lab()
        except InfrastructureError as error:
            raise InfrastructureError(f"{error.message}; {run} broke because {why}", hint=error.hint) from error
        return None

    @asynccontextmanager
    async def _explained(self, place: AttemptPlace) -> AsyncIterator[None]:
        """Close the attempt with its reason when what is inside fails; what is logged inside names the attempt."""
        try:
            with log_fields(run=place.run.format(), attempt=place.number):
                yield
        except EpiError as error:
            await self._end(place, "failed", str(error), error.fault)
            raise
        except _HeldUpError:
            await self._end(place, "interrupted", "the run before it could not be evaluated yet", "")
            raise
        except asyncio.CancelledError:
            reason = "the orchestrator was stopped in order"
            await self._ends.end(place.run, place.number, "interrupted", reason=reason, wait=False)
            raise
        except Exception as error:
            await self._end(place, "failed", f"{type(error).__name__}: {error}", "bug")
            raise

    async def _end(self, place: AttemptPlace, outcome: AttemptOutcome, reason: str, fault: str) -> None:
        await self._ends.end(place.run, place.number, outcome, reason=reason, fault=fault)
