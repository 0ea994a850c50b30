"""From journal and result files to what the API answers."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from orchestrator.api.models import (
    AttemptStatus,
    CampaignStatus,
    CampaignSummary,
    ConfigurationResult,
    RunDetail,
    RunStatus,
    WindowOtherLoad,
)
from orchestrator.campaign.interim import INTERIM_STEP
from orchestrator.campaign.service import CampaignService
from orchestrator.domain.analysis.deliveries import delivery_totals
from orchestrator.domain.analysis.statistics import ConfigurationResult as DomainResult
from orchestrator.domain.analysis.utilisation import utilisation
from orchestrator.domain.campaign.matrix import reference_of
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.schedule import PlannedRun, configurations_of, runs_total, schedule
from orchestrator.domain.campaign.steps import Step, step_of_agent
from orchestrator.domain.run.disturbances import foreign_load
from orchestrator.domain.run.findings import Verdict
from orchestrator.reports.summary import load_results
from orchestrator.results.files import list_runs, read_run, run_files
from orchestrator.results.schema import EpiFile
from orchestrator.store.records import Attempt, Campaign, CampaignHead, RunFigures, UnreadableCampaign
from shared.kernel.errors import NotFoundError
from shared.kernel.records import Configuration
from shared.wire.node_jobs.artifacts import FetchResult

_BRINGING: tuple[Step, ...] = ("fetch_base", "deploy")
"""Steps whose results say how models reached a node."""


async def campaign_summaries(
    service: CampaignService, campaigns: Sequence[Campaign | UnreadableCampaign]
) -> list[CampaignSummary]:
    """Return one line about each campaign; the reason of one that cannot be read is why."""
    done = await service.journal.runs_done()

    def summary(campaign: Campaign | UnreadableCampaign) -> CampaignSummary:
        runs_done = done.get(campaign.id, 0)
        if isinstance(campaign, UnreadableCampaign):
            unread = {"reason": campaign.defect, "readable": False}
            return CampaignSummary.model_validate(_head(service, campaign, runs_done, runs_done) | unread)
        return CampaignSummary.model_validate(_head(service, campaign, runs_done, runs_total(campaign.spec)))

    return [summary(campaign) for campaign in campaigns]


async def campaign_status(service: CampaignService, campaign: Campaign) -> CampaignStatus:
    """Return a campaign with its runs and what is being done now."""
    runs = await _runs(service, campaign)
    doing, eta_s = service.doing(campaign.spec.id)
    brought = {step_of_agent(step, node): node for node in service.lab.nodes for step in _BRINGING}
    results = await service.journal.results(campaign.spec.id, "evaluate", INTERIM_STEP, *brought)
    evaluated = [(run, RunFigures.model_validate(payload)) for run, payload in results["evaluate"]]
    return CampaignStatus.model_validate(
        _head(service, campaign, sum(run.state == "done" for run in runs), len(runs))
        | {
            "spec": campaign.spec,
            "spec_hash": campaign.spec_hash,
            "step": "" if doing is None else f"{doing.run or 'setup'}: {doing.step}",
            "progress": 0.0 if doing is None else doing.fraction,
            "message": "" if doing is None else doing.message,
            "eta_s": eta_s,
            "utilisation": utilisation(
                ((run, (*figures.windows, *figures.waits)) for run, figures in evaluated),
                campaign.spec.windows.gap_before_window_s,
            ),
            "interim_analyses": tuple(analysis for _, analysis in results[INTERIM_STEP]),
            "deliveries": delivery_totals(
                (node, FetchResult.model_validate(payload))
                for step, node in brought.items()
                for _, payload in results[step]
            ),
            "configurations": configurations_of(campaign.spec),
            "runs": tuple(runs),
        }
    )


async def configuration_results(service: CampaignService, campaign_id: str) -> list[ConfigurationResult]:
    """Return the figures of every configuration that has at least one finished run, in matrix order."""
    return await asyncio.to_thread(_results, service.lab.settings.results_dir / campaign_id)


async def run_detail(service: CampaignService, campaign: Campaign, run: RunReference) -> RunDetail:
    """Return one run with its result file, if it has one.

    Raises:
        NotFoundError: the campaign's matrix has no such run.
    """
    for status in await _runs(service, campaign):
        if status.reference == run:
            folder = service.lab.settings.results_dir / campaign.spec.id
            return await asyncio.to_thread(_detail, folder, status)
    raise NotFoundError("the campaign has no such run", where=f"{campaign.spec.id}/{run}")


def _head(service: CampaignService, campaign: CampaignHead, runs_done: int, runs_total: int) -> dict[str, object]:
    power = service.broadcaster.last_power
    return {
        "id": campaign.id,
        "state": campaign.state,
        "request": campaign.request,
        "reason": campaign.reason,
        "runs_done": runs_done,
        "runs_total": runs_total,
        "created_utc_ns": campaign.created_utc_ns,
        "emulated": power is not None and power.emulated,
    }


async def _runs(service: CampaignService, campaign: Campaign) -> list[RunStatus]:
    attempts = await service.journal.attempts(campaign.spec.id)
    is_running = campaign.state == "running"
    return [_run(one, attempts.get(one.run, []), is_running) for one in schedule(campaign.spec)]


def _run(planned: PlannedRun, attempts: list[Attempt], is_running: bool) -> RunStatus:
    """Return how a run is; an attempt that is open while the campaign stands waits for its evaluation."""
    last = attempts[-1] if attempts else None
    if last is None:
        state = "pending"
    elif any(attempt.outcome == "done" for attempt in attempts):
        state = "done"
    else:
        state = {None: "running" if is_running else "pending", "failed": "failed", "interrupted": "pending"}.get(
            last.outcome, "failed"
        )
    return RunStatus.model_validate(
        {
            "configuration": planned.configuration.id,
            "repetition": planned.repetition,
            "state": state,
            "step": last.step if last is not None and last.outcome is None else "",
            "attempts": tuple(
                AttemptStatus(
                    number=one.number, outcome=one.outcome, step=one.step, reason=one.reason,
                    started_utc_ns=one.started_utc_ns, ended_utc_ns=one.ended_utc_ns,
                )
                for one in attempts
            ),
        }
    )  # fmt: skip


def _results(folder: Path) -> list[ConfigurationResult]:
    if not (folder / "campaign.json").exists():
        return []
    data = load_results(folder)
    last: dict[str, EpiFile] = {}
    for run in list_runs(folder):
        last[run.configuration] = read_run(folder, run).epi
    return [
        _result(
            configuration,
            data.results[configuration.id],
            last[configuration.id],
            data.runs[configuration.id][-1].validity.verdict,
        )
        for configuration in data.configurations
        if configuration.id in last
    ]


def _result(configuration: Configuration, result: DomainResult, epi: EpiFile, verdict: Verdict) -> ConfigurationResult:
    interval = result.epi_ratio_interval
    tokens, seconds = epi.energy.total_tokens, epi.energy.duration_seconds
    reference = reference_of(configuration)
    return ConfigurationResult(
        configuration=configuration,
        reference=None if reference == configuration.id else reference,
        repetitions=result.repetitions,
        joules_per_token=result.joules_per_token,
        tokens_per_second=tokens / seconds if tokens and seconds else None,
        accuracy_composite=result.accuracy,
        accuracies=dict(epi.evaluation.accuracy.shares),
        epi=result.epi,
        epi_ratio=result.epi_ratio,
        epi_ratio_low=None if interval is None else interval.low,
        epi_ratio_high=None if interval is None else interval.high,
        verdict=None if reference == configuration.id else result.comparison,
        validity=verdict,
        emulated=epi.emulated,
        reason=result.reason or epi.no_epi_reason,
    )


def _detail(folder: Path, status: RunStatus) -> RunDetail:
    files = run_files(folder, status.reference)
    present = tuple(kind for kind, path in files.items() if path.is_file())
    if status.state != "done":
        return RunDetail(status=status, files=present)
    found = read_run(folder, status.reference)
    group = load_results(folder).runs[status.configuration]
    judged = next(run for run in group if run.repetition == status.repetition)
    return RunDetail(
        status=status, windows=found.run.windows, epi=found.epi.model_dump(mode="json"), files=present,
        other_load=tuple(
            WindowOtherLoad(label=window.label, nodes=foreign_load(window)) for window in found.run.window_loads
        ),
        clocks=found.run.clocks,
        validity=judged.validity,
    )  # fmt: skip
