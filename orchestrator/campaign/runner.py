"""One campaign from its journal to its end: setup once, then every run that is left, until somebody says stop.

On start it looks at what the journal and the agents already know; an attempt that was open when the process died is
evaluated if all was measured, and becomes `interrupted` if not.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.benchmarks.records import SuiteResult, WindowAnswers
from orchestrator.campaign.accuracy import Accuracy, SuiteMaker, make_suites
from orchestrator.campaign.admission import admit, is_admitted
from orchestrator.campaign.attempt import AttemptRunner
from orchestrator.campaign.attempt_ends import AttemptEnds
from orchestrator.campaign.builds import check_builds, find_builds
from orchestrator.campaign.calls import Caller
from orchestrator.campaign.context import CampaignContext
from orchestrator.campaign.evaluation import ResultWriter
from orchestrator.campaign.evaluator import Evaluator, stays_open
from orchestrator.campaign.interim import InterimAnalyses
from orchestrator.campaign.lab import Lab
from orchestrator.campaign.late_answers import LateAnswers
from orchestrator.campaign.memory import check_fits, fits_of
from orchestrator.campaign.open_attempts import close_open_attempts
from orchestrator.campaign.patience import Patience
from orchestrator.campaign.pending import PendingEvaluation, PendingEvaluations
from orchestrator.campaign.pins import SurgeonPins, release
from orchestrator.campaign.pipeline import VariantPipeline
from orchestrator.campaign.preparation import prepare_bases, prepare_variant
from orchestrator.campaign.recovery import Recovery, StopRequestedError
from orchestrator.campaign.run_loop import RunLoop
from orchestrator.campaign.safekeeping import JournalKeeper
from orchestrator.campaign.topology import check_engines
from orchestrator.campaign.trace import TraceReading
from orchestrator.domain.analysis.interim import InterimAnalysis
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.schedule import configurations_of, schedule
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.domain.campaign.states import CampaignState, Request
from orchestrator.store.copies import JournalCopies
from orchestrator.store.journal import Journal
from shared.kernel.clock import utc_ns
from shared.kernel.errors import DataError, EpiError, NotFoundError, StorageError
from shared.kernel.records import CampaignId
from shared.service.health import HealthRegistry
from shared.wire.protocol import JobState


@dataclass(frozen=True)
class Doing:
    """What is being done now, for the live feed."""

    campaign: CampaignId
    run: str = ""
    step: str = ""
    fraction: float = 0.0
    message: str = ""
    tokens_total: int | None = None

    @property
    def tokens(self) -> int | None:
        """Tokens so far in this window; workloads report the share of their tokens as progress."""
        return None if self.tokens_total is None else round(self.fraction * self.tokens_total)


class CampaignRunner:
    """Runs one campaign to its end."""

    def __init__(
        self,
        spec: CampaignSpec,
        journal: Journal,
        lab: Lab,
        suite_of: SuiteMaker,
        on_doing: Callable[[Doing], None],
        on_finished: Callable[[Path], None],
        health: HealthRegistry,
    ) -> None:
        self._spec = spec
        self._patience = Patience(lab.settings.results_dir, health, self._publish_message)
        self._health = health
        self._journal = journal.patient(self._patience.pause)
        self._pending = PendingEvaluations(lab.settings.state_dir, spec.id)
        self._ends = AttemptEnds(self._journal, spec.id, lab.settings.state_dir)
        self._keeper = JournalKeeper(JournalCopies(journal.path), health, lambda: lab.window_open)
        self._lab = lab
        self._suite_of = suite_of
        self._on_doing = on_doing
        self._on_finished = on_finished

    async def run(self) -> None:
        """Do all that is left of the campaign; its end state is in the journal."""
        spec = self._spec
        recovery = Recovery(
            self._journal, self._lab, spec.timeouts.recover_s,
            check_stop_requested=self._check_stop, publish=self._publish_message,
        )  # fmt: skip
        caller = Caller(self._journal, spec.id, spec.max_attempts, recovery.wait_for, self._publish_job(spec))
        context = CampaignContext(spec, self._lab, caller, self._health)
        try:
            await self._run(context, recovery)
        except StopRequestedError as stop:
            await self._stop(context, stop.state)
        except EpiError as error:
            stop_state = await self._stop_requested(spec.id) if isinstance(error, StorageError) else None
            if stop_state is not None:  # it waited for a disk until somebody had enough of it
                await self._stop(context, stop_state)
            else:
                await self._journal.set_state(spec.id, "failed", str(error))
        except Exception as error:
            await self._journal.set_state(spec.id, "failed", f"defect: {type(error).__name__}: {error}")
            raise
        with suppress(DataError):  # health says it
            await self._keeper.keep(since_utc_ns=utc_ns())

    async def _stop(self, context: CampaignContext, state: CampaignState) -> None:
        if state == "cancelled":
            await release(context)
        await self._journal.set_state(context.spec.id, state, "asked by the user")

    async def _run(self, context: CampaignContext, recovery: Recovery) -> None:
        await self._journal.ensure_writable()  # nobody is asked for what cannot be written down
        await self._patience.results(self._ends.reserve, self._is_stop_requested)
        created = (await self._journal.campaign(self._spec.id)).created_utc_ns
        await self._keeper.keep(since_utc_ns=created)
        evaluator = Evaluator(
            self._journal, self._spec.id, self._lab.settings.results_dir / self._spec.id, self._pending,
            TraceReading(self._lab.meter, self._spec.timeouts.recover_s, self._check_stop, self._publish_message),
            self._patience, self._is_stop_requested, self._count, self._ends,
        )  # fmt: skip
        for pending in await close_open_attempts(self._journal, self._lab, self._spec.id, self._pending, self._ends):
            await self._evaluate_now(evaluator, pending)
        if not is_admitted(context.spec):  # the surgeon was away when the campaign was made
            admitted = await recovery.patiently(lambda: admit(context.spec, self._lab))
            await self._journal.fill_in(admitted)
            context = replace(context, spec=admitted)
        spec = context.spec
        suite_task = asyncio.create_task(asyncio.to_thread(make_suites, spec, self._suite_of))
        self._publish_step(spec.id, "", "prepare")
        try:
            able = await recovery.patiently(lambda: check_engines(self._lab, configurations_of(spec)))
            builds = await recovery.patiently(lambda: find_builds(self._lab))
            check_builds(list(self._lab.nodes), builds, configurations_of(spec))
            fits = await recovery.patiently(lambda: fits_of(spec, self._lab))
            check_fits(fits)
            pins = SurgeonPins(context, self._has_ended)
            bases = await prepare_bases(context, pins)
            suites = await suite_task
        finally:
            suite_task.cancel()
        deliveries = bases[spec.quantization].deliveries
        writer = ResultWriter(self._lab.settings.results_dir, spec, deliveries, created, builds, fits)
        await recovery.patiently(lambda: self._write_head(writer, {}))

        def publish_step(run: RunReference, step: str) -> None:
            self._publish_step(spec.id, run.format(), step)

        order = schedule(spec)
        configurations = [planned.configuration for planned in order]
        late = LateAnswers(
            self._journal, spec.id, self._lab.settings.results_dir / spec.id, self._patience,
            self._is_stop_requested, evaluator.writing,
        )  # fmt: skip
        accuracy = Accuracy(context, suites, self._suite_of, late, self._health, publish_step)
        async with (
            VariantPipeline(
                lambda configuration: prepare_variant(context, bases, pins, configuration),
                configurations,
                spec.pipeline_ahead,
            ) as variants,
            accuracy.asked(configurations, variants.get) as questions,
        ):
            loop = RunLoop(
                journal=self._journal,
                spec=spec,
                attempts=AttemptRunner(context, pins, questions, able, publish_step),
                writer=writer,
                variants=variants,
                recovery=recovery,
                evaluator=evaluator,
                check_stop_requested=self._check_stop,
                publish_step=publish_step,
                keeper=self._keeper,
                ends=self._ends,
            )
            interim_analyses = InterimAnalyses(self._journal, spec, self._lab.settings.results_dir / spec.id)
            for block in interim_analyses.blocks(order):
                failed = await loop.run_all(block)
                failed |= await accuracy.complete([planned.run for planned in block], self._check_stop)
                if await interim_analyses.take(block[-1].repetition):
                    break
        await self._finish(context, recovery, writer, failed, interim_analyses.taken)

    async def _finish(
        self,
        context: CampaignContext,
        recovery: Recovery,
        writer: ResultWriter,
        failed: Mapping[RunReference, str],
        interim_analyses: tuple[InterimAnalysis, ...],
    ) -> None:
        spec = context.spec
        self._publish_step(spec.id, "", "report")
        if failed or interim_analyses:
            await recovery.patiently(lambda: self._write_head(writer, failed, interim_analyses))
        folder = self._lab.settings.results_dir / spec.id
        await self._patience.results(lambda: self._on_finished(folder), self._is_stop_requested)
        if failed:
            first, why = next(iter(failed.items()))
            reason = f"{len(failed)} run(s) could not be measured, first: {first}: {why}"
            await self._journal.set_state(spec.id, "failed", reason)
        else:
            await release(context)
            await self._journal.set_state(
                spec.id, "finished", interim_analyses[-1].sentence() if interim_analyses else ""
            )

    async def _write_head(
        self,
        writer: ResultWriter,
        failed: Mapping[RunReference, str],
        interim_analyses: tuple[InterimAnalysis, ...] = (),
    ) -> None:
        facts = {name: await self._lab.facts(name) for name in self._lab.nodes}
        instrument = (await self._lab.meter_status()).instrument
        await self._patience.results(
            lambda: writer.write_head(facts, instrument, failed, interim_analyses), self._is_stop_requested
        )

    async def _count(self, answers: WindowAnswers) -> SuiteResult:
        """Count answers that the last orchestrator had and did not count."""
        spec = self._spec
        sample = None if spec.scored == "cluster" else spec.intelligence.cluster_sample
        return await asyncio.to_thread(lambda: self._suite_of(spec, sample).count(answers))

    async def _evaluate_now(self, evaluator: Evaluator, pending: PendingEvaluation) -> None:
        """Evaluate what the last orchestrator had measured and not evaluated; what cannot be is measured again."""
        self._publish_step(self._spec.id, pending.run.run_id, "evaluate")
        try:
            await evaluator.evaluate(pending)
        except EpiError as error:
            if stays_open(error):
                raise

    async def _has_ended(self, campaign_id: CampaignId) -> bool:
        """Tell whether a campaign is finished or cancelled; what nobody here knows may be another orchestrator's."""
        try:
            return (await self._journal.find(campaign_id)).state in ("finished", "cancelled")
        except NotFoundError:
            return False

    async def _check_stop(self) -> None:
        if (state := await self._stop_requested(self._spec.id)) is not None:
            raise StopRequestedError(state)

    async def _is_stop_requested(self) -> bool:
        return await self._stop_requested(self._spec.id) is not None

    async def _stop_requested(self, campaign_id: CampaignId) -> CampaignState | None:
        """Return the state that somebody asked for, None when the campaign is to go on."""
        request = (await self._journal.campaign(campaign_id)).request
        wanted: dict[Request, CampaignState] = {"pause": "paused", "cancel": "cancelled"}
        return wanted.get(request)

    def _publish_message(self, message: str) -> None:
        self._on_doing(Doing(self._spec.id, "", message))

    def _publish_step(self, campaign: CampaignId, run: str, step: str) -> None:
        self._on_doing(Doing(campaign, run, step))

    def _publish_job(self, spec: CampaignSpec) -> Callable[[str, str, JobState], None]:
        last_s = 0.0

        def publish_step(run: str, step: str, state: JobState) -> None:
            nonlocal last_s
            now_s = time.monotonic()
            if now_s - last_s >= 0.1 or state.is_terminal:
                last_s = now_s
                total = spec.windows.tokens_of(step)
                self._on_doing(Doing(spec.id, run, step, state.progress, state.message, total))

        return publish_step
