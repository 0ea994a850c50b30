"""The campaign service: one campaign at a time, requests from the API, and what the dashboard wants to know."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.benchmarks.records import SuiteSpec
from orchestrator.campaign.admission import admit, is_admitted
from orchestrator.campaign.entry_log import log_entry
from orchestrator.campaign.lab import Lab
from orchestrator.campaign.live import CampaignProgress, LiveBroadcaster, LiveMessage
from orchestrator.campaign.memory import fits_of
from orchestrator.campaign.runner import CampaignRunner, Doing
from orchestrator.domain.campaign.fit import ConfigurationFit
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.schedule import configurations_of, runs_total
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.domain.campaign.states import TERMINAL_CAMPAIGN
from orchestrator.store.journal import Journal
from orchestrator.store.records import Attempt, Campaign, UnreadableCampaign
from shared.kernel.clock import utc_ns
from shared.kernel.errors import ConflictError, InfrastructureError, NotFoundError
from shared.kernel.records import CampaignId
from shared.service.background import log_death
from shared.service.health import HealthRegistry
from shared.service.logs import log_fields

if TYPE_CHECKING:
    from orchestrator.benchmarks.suite import BenchmarkSuite

log = logging.getLogger(__name__)

_AFTER_A_DEFECT_S = 5.0


class CampaignService:
    """Owns the runner's task; everything else asks it."""

    def __init__(
        self,
        journal: Journal,
        lab: Lab,
        broadcaster: LiveBroadcaster,
        *,
        on_finished: Callable[[Path], None] = lambda folder: None,
        health: HealthRegistry | None = None,
    ) -> None:
        """`on_finished` is called in a thread with the result folder of every campaign whose runs are all done.

        What keeps campaigns from being run is reported to `health`.
        """
        self._health = health or HealthRegistry()
        self._unreadable: set[str] = set()
        self.journal = journal
        self.lab = lab
        self.broadcaster = broadcaster
        self._on_finished = on_finished
        self._wake = asyncio.Event()
        self._doing: Doing | None = None
        self._current: str | None = None
        self._eta_s: float | None = None
        self._estimating: asyncio.Task[None] | None = None
        journal.listen(lambda entry: broadcaster.publish(LiveMessage(type="entry", entry=entry)))
        journal.listen(log_entry)

    async def create(self, spec: CampaignSpec) -> Campaign:
        """Remember a campaign and start it.

        Raises:
            ConfigurationError: anything that the lab can never measure, before any work.
            ConflictError: the id is taken by another spec.
        """
        try:
            await self.journal.campaign(spec.id)
        except NotFoundError:
            spec = await self.admitted(spec)
            configurations_of(spec)
        campaign = await self.journal.create(spec)
        if campaign.state == "created":
            await self.journal.set_state(spec.id, "running")
            self._wake.set()
        return await self.journal.campaign(spec.id)

    async def admitted(self, spec: CampaignSpec) -> CampaignSpec:
        """Return a spec held against the lab; while the surgeon is away as it is, to be held against it at the start.

        Raises:
            ConfigurationError: anything that the lab can never measure.
        """
        try:
            return await admit(spec, self.lab)
        except InfrastructureError as error:
            log.warning("campaign %s is checked against the lab when the surgeon is back: %s", spec.id, error)
            return spec

    async def fits(self, spec: CampaignSpec) -> tuple[ConfigurationFit, ...]:
        """Return how the configurations of an admitted spec fit into their nodes' memory; () while nobody can say."""
        if not is_admitted(spec):
            return ()
        try:
            return await fits_of(spec, self.lab)
        except InfrastructureError as error:
            log.warning("the memory of %s is not known: %s", spec.id, error)
            return ()

    async def pause(self, campaign_id: CampaignId) -> Campaign:
        """Ask a running campaign to stop after the present run."""
        return await self._ask(campaign_id, "pause")

    async def cancel(self, campaign_id: CampaignId) -> Campaign | UnreadableCampaign:
        """Ask a campaign to end after the present run; one that does not run, or cannot be read, ends at once."""
        campaign = await self.journal.find(campaign_id)
        if campaign.state != "running" or isinstance(campaign, UnreadableCampaign):
            await self.journal.set_state(campaign_id, "cancelled", "asked by the user")
            self._wake.set()
            return await self.journal.find(campaign_id)
        return await self._ask(campaign_id, "cancel")

    async def resume(self, campaign_id: CampaignId) -> Campaign:
        """Let a paused, failed or cancelled campaign go on; a running one forgets its request."""
        campaign = await self.journal.campaign(campaign_id)
        if campaign.state == "running":
            await self.journal.set_request(campaign_id, "none")
        else:
            await self.journal.set_state(campaign_id, "running", "resumed by the user")
        self._wake.set()
        return await self.journal.campaign(campaign_id)

    async def retry(self, campaign_id: CampaignId) -> Campaign:
        """Try the runs again that could not be measured; finished runs are kept.

        Raises:
            ConflictError: the campaign did not fail and was not cancelled, so there is nothing to try again.
        """
        campaign = await self.journal.campaign(campaign_id)
        if campaign.state not in ("failed", "cancelled"):
            raise ConflictError(f"nothing to retry: the campaign is {campaign.state}", where=campaign_id)
        return await self.resume(campaign_id)

    def doing(self, campaign_id: CampaignId) -> tuple[Doing | None, float | None]:
        """Return what is being done for a campaign now, and the seconds to its end if they can be estimated."""
        if self._current != campaign_id:
            return None, None
        return self._doing, self._eta_s

    @property
    def is_busy(self) -> bool:
        """True while a campaign is being run."""
        return self._current is not None

    async def run_forever(self) -> None:
        """Run campaigns, oldest first, as long as the process lives."""
        while True:
            self._wake.clear()
            waiting = await self.journal.running()
            self._report_unreadable(waiting)
            spec = next((one.spec for one in waiting if isinstance(one, Campaign)), None)
            if spec is None:
                await self._wake.wait()
                continue
            self._current = spec.id
            runner = CampaignRunner(
                spec, self.journal, self.lab, self._suite, self._on_doing, self._on_finished, self._health
            )
            try:
                with log_fields(campaign=spec.id):
                    await self._estimate(spec)
                    await runner.run()
            except Exception:
                log.exception("campaign %s stopped on a defect", spec.id)
                await asyncio.sleep(_AFTER_A_DEFECT_S)  # should it be running still, it must not spin
            finally:
                self._current = self._doing = self._eta_s = None

    def _report_unreadable(self, campaigns: list[Campaign | UnreadableCampaign]) -> None:
        """Say which campaigns should run and cannot be read; they stop nobody else."""
        now = {one.id: one.defect for one in campaigns if isinstance(one, UnreadableCampaign)}
        for gone in self._unreadable - now.keys():
            self._health.clear(f"campaign {gone}")
        for campaign_id, defect in now.items():
            self._health.set(f"campaign {campaign_id}", f"campaign {campaign_id} is not run: {defect}")
        self._unreadable = set(now)

    async def _ask(self, campaign_id: CampaignId, request: str) -> Campaign:
        campaign = await self.journal.campaign(campaign_id)
        if campaign.state in TERMINAL_CAMPAIGN or campaign.state != "running":
            raise ConflictError(f"a campaign that is {campaign.state} cannot {request}", where=campaign_id)
        await self.journal.set_request(campaign_id, "pause" if request == "pause" else "cancel")
        return await self.journal.campaign(campaign_id)

    def _suite(self, spec: CampaignSpec, sample: int | None = None) -> "BenchmarkSuite":
        """Read the tasks and render the prompts; called in a thread, since importing lm-eval takes seconds.

        With `sample` only so many questions of each task are asked.
        """
        from orchestrator.benchmarks.suite import BenchmarkSuite

        suite = SuiteSpec.of(spec.intelligence, include_paths=self.lab.settings.task_dirs)
        first_use = self.lab.settings.state_dir / "question-sets.json"
        return BenchmarkSuite(suite.model_copy(update={"sample": sample, "first_use_file": first_use}))

    def _on_doing(self, doing: Doing) -> None:
        new_run = self._doing is None or self._doing.run != doing.run
        self._doing = doing
        if new_run:
            self._estimating = asyncio.create_task(
                self._estimate_by_id(doing.campaign), name="estimate of the time left"
            )
            self._estimating.add_done_callback(log_death)
        self.broadcaster.publish(
            LiveMessage(
                type="progress",
                progress=CampaignProgress(
                    campaign=doing.campaign, run=doing.run, step=doing.step, fraction=doing.fraction,
                    message=doing.message, window_open=self.lab.window_open, eta_s=self._eta_s,
                    tokens=doing.tokens, tokens_total=doing.tokens_total, utc_ns=utc_ns(),
                ),
            )
        )  # fmt: skip

    async def _estimate_by_id(self, campaign_id: CampaignId) -> None:
        await self._estimate((await self.journal.campaign(campaign_id)).spec)

    async def _estimate(self, spec: CampaignSpec) -> None:
        """Estimate the time left from the mean length of the finished attempts."""
        attempts = await self.journal.attempts(spec.id)
        self._eta_s = estimate_eta_s(attempts, runs_total(spec))


def estimate_eta_s(attempts: Mapping[RunReference, list[Attempt]], runs_total: int) -> float | None:
    """Return the seconds left: the mean time from one finished run to the next, times the runs that are left."""
    ends = sorted(a.ended_utc_ns for run in attempts.values() for a in run if a.outcome == "done" and a.ended_utc_ns)
    starts = [a.started_utc_ns for run in attempts.values() for a in run]
    if not ends:
        return None
    return (ends[-1] - min(starts)) / 1e9 / len(ends) * (runs_total - len(ends))
