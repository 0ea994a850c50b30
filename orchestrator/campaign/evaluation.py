"""From what an attempt measured to the records of its result. Not here: when and how often (`evaluator`)."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator.benchmarks.records import library_versions
from orchestrator.campaign.answers import source_of
from orchestrator.campaign.builds import LabBuilds
from orchestrator.campaign.measured import MeasuredRun
from orchestrator.campaign.pending import PendingEvaluation
from orchestrator.domain.analysis.interim import InterimAnalysis
from orchestrator.domain.campaign.fit import ConfigurationFit
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.schedule import configurations_of
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.domain.run.evaluate import EvaluatedRun, RunEvaluation, evaluate_run
from orchestrator.domain.run.records import (
    RULES_VERSION,
    Environment,
    MarkerLoad,
    NodeMemoryUse,
    Provenance,
    RunInput,
    ServedBy,
)
from orchestrator.results.files import read_traces, write_campaign
from orchestrator.results.schema import CampaignFile
from orchestrator.store.records import RunFigures
from shared.kernel.build import software_build
from shared.kernel.errors import InfrastructureError
from shared.kernel.records import Instrument, NodeName
from shared.wire.meter_api import Ambient, WindowSummary
from shared.wire.node_jobs.activity import AgentActivity
from shared.wire.node_jobs.artifacts import FetchResult
from shared.wire.node_jobs.host import NodeFacts


class ResultWriter:
    """Makes what the result tree of one campaign holds, from what was measured and seen of the lab."""

    def __init__(
        self,
        results_dir: Path,
        spec: CampaignSpec,
        base_deliveries: Mapping[NodeName, FetchResult],
        created_utc_ns: int,
        builds: LabBuilds,
        fits: Iterable[ConfigurationFit] = (),
    ) -> None:
        self._dir = results_dir / spec.id
        self._spec = spec
        self._base_deliveries = base_deliveries
        self._created_utc_ns = created_utc_ns
        self._builds = builds
        self._fits = {fit.configuration: fit for fit in fits if fit.nodes}

    def write_head(
        self,
        facts: dict[str, NodeFacts],
        instrument: Instrument,
        failures: Mapping[RunReference, str],
        interim_analyses: tuple[InterimAnalysis, ...] = (),
    ) -> None:
        """Write `campaign.json`: what is planned, and why runs are missing."""
        write_campaign(
            self._dir,
            CampaignFile(
                campaign_id=self._spec.id,
                title=self._spec.description,
                model=self._spec.model,
                hardware=hardware_line(list(facts.values())),
                instrument=instrument,
                created_utc_ns=self._created_utc_ns,
                repetitions=self._spec.repetitions,
                configurations=configurations_of(self._spec),
                protocol=self._spec.protocol(),
                spec_sha256=self._spec.spec_hash(),
                software=dict(self._builds.software),
                engines=dict(self._builds.engines),
                base_deliveries=dict(self._base_deliveries),
                failures={**(self._spec.left_out or {}), **{run.format(): why for run, why in failures.items()}},
                memory=dict(self._fits),
                interim_analyses=interim_analyses,
            ),
        )

    def pending(self, measured: MeasuredRun) -> PendingEvaluation:
        """Return what of an attempt is to be evaluated, once its answers are counted and its trace is read."""
        where, answers = self._spec.scored, measured.answers
        return PendingEvaluation(
            run=self._run_input(measured), questions=() if where == "cluster" or answers is None else answers.untimed,
            uncounted=measured.window_answers, counts_as="questions" if where == "cluster" else "sample",
            trace_start_utc_ns=measured.trace_start_utc_ns, trace_end_utc_ns=measured.trace_end_utc_ns,
        )  # fmt: skip

    def _run_input(self, measured: MeasuredRun) -> RunInput:
        place, variant, marker = measured.place, measured.variant, measured.marker
        ambient = measured.meter.ambient or Ambient()
        before = tuple(measured.facts_before.values())
        statistics, headline = variant.base.statistics, measured.served["decode"]
        governors = {facts.governor for facts in before}
        builds = self._builds.of_run(measured.facts_before)
        return RunInput(
            run_id=place.run.format(),
            campaign_id=self._spec.id,
            configuration=place.configuration,
            repetition=place.run.repetition,
            attempt=place.number,
            timestamp_utc_ns=min(window.start_utc_ns for window in measured.windows),
            model=self._spec.model,
            model_experts_per_token=variant.base.model.experts_per_token or None,
            hardware=hardware_line(list(before)),
            instrument=measured.meter.instrument,
            environment=Environment(
                ambient_temp_c=ambient.temperature_c,
                ambient_humidity_percent=ambient.humidity_percent,
                frequency_governor=governors.pop() if len(governors) == 1 else None,
                background_load=sum(facts.load_1min for facts in before) / len(before) if before else None,
            ),
            facts_before=before,
            facts_after=tuple(measured.facts_after.values()),
            agent_activity=dict(measured.agent_activity),
            window_agent_activity=dict(measured.window_agent_activity),
            deliveries=dict(measured.deliveries),
            steady_state=measured.steady_state,
            clocks=dict(measured.clocks),
            window_loads=measured.window_loads,
            nodes=place.nodes if place.configuration.n_nodes else None,
            memory=memory_use(self._fits.get(place.configuration.id), headline, measured.agent_activity),
            windows=measured.windows,
            markers=(
                MarkerLoad(
                    node=place.root, start_utc_ns=marker.start_utc_ns, end_utc_ns=marker.end_utc_ns, on=marker.on
                ),
            ),
            calibrated_utc_ns=measured.meter.instrument.calibrated_utc_ns,
            answers=None if measured.answers is None else source_of(measured.answers),
            plan=None if variant.plan is None else variant.plan.plan,
            surgeries=variant.surgeries,
            provenance=Provenance(
                plan_sha256=None if variant.plan is None else variant.plan.plan_hash,
                model_sha256=variant.measured.request.sha256,
                base_sha256=variant.measured.base.sha256,
                statistics_sha256=None if statistics is None else statistics.statistics_sha256,
                spec_sha256=self._spec.spec_hash(),
                output_sha256=measured.output_sha256,
                engine=headline.engine,
                engine_build=headline.engine_build,
                windows=dict(measured.served),
                distributed_llama_version=headline.engine_build if headline.engine == "distributed-llama" else None,
                lm_eval_version=_versions(measured).get("lm_eval"),
                epi_factory_version=str(software_build()),
                software=dict(builds.software),
                engines=dict(builds.engines),
                task_names=tuple(task.task for task in self._spec.intelligence.tasks),
            ),
            protocol=self._spec.protocol(),
            rules_version=RULES_VERSION,
        )


def _versions(measured: MeasuredRun) -> Mapping[str, str]:
    if measured.window_answers is not None:
        return library_versions()
    return {} if measured.answers is None else measured.answers.versions


def evaluate(pending: PendingEvaluation, window: WindowSummary, trace_file: Path) -> tuple[RunInput, EvaluatedRun]:
    """Evaluate a measured run from the file of its trace; return it with what the meter says of the trace.

    Raises:
        InfrastructureError: the trace does not carry the headline window, so the attempt must be repeated.
        DataError: what was measured does not fit together.
    """
    run = pending.with_meter_record(window)
    evaluated = evaluate_run(run, read_traces(trace_file, window.nodes), pending.questions, pending.sample)
    headline = evaluated.evaluation.headline
    if headline is None or headline.total_joules is None:
        raise InfrastructureError(
            f"the power trace does not carry the decode window: {evaluated.evaluation.epi.reason}",
            where=run.run_id, hint="is the meter alive? `epi meter status`",
        )  # fmt: skip
    return run, evaluated


def memory_use(
    fit: ConfigurationFit | None, served: ServedBy, activity: Mapping[NodeName, AgentActivity]
) -> dict[NodeName, NodeMemoryUse]:
    """Return what was calculated, what the engine reported and what was measured, by node."""
    calculated = {} if fit is None else {node.node: node for node in fit.nodes}
    return {
        name: NodeMemoryUse(
            calculated=calculated.get(name), reported=served.buffers.get(name),
            engine_peak_rss_bytes=activity[name].engine_peak_rss_bytes if name in activity else None,
            worker_peak_rss_bytes=activity[name].worker_peak_rss_bytes if name in activity else None,
        )
        for name in served.nodes
    }  # fmt: skip


def figures_of(run: RunInput, evaluation: RunEvaluation) -> RunFigures:
    """Return what the journal keeps of a result."""
    waited = run.steady_state
    return RunFigures(
        attempt=run.attempt,
        epi=evaluation.epi.value,
        joules_per_token=evaluation.epi.joules_per_token,
        accuracy=evaluation.accuracy.composite,
        validity=evaluation.validity.verdict,
        reason=evaluation.epi.reason,
        windows=tuple((window.start_utc_ns, window.end_utc_ns) for window in run.windows),
        waits=() if waited is None else ((waited.start_utc_ns, waited.end_utc_ns),),
    )


def hardware_line(facts: list[NodeFacts]) -> str:
    """Return the nodes in one line, for example `4 x Raspberry Pi 5 Model B, 4 CPUs, 16 GiB`."""
    kinds: dict[str, int] = {}
    for one in facts:
        kind = f"{one.board or one.cpu_model or 'unknown'}, {one.n_cpus} CPUs, {one.memory_bytes / 2**30:.0f} GiB"
        kinds[kind] = kinds.get(kind, 0) + 1
    return "; ".join(f"{count} x {kind}" for kind, count in kinds.items())
