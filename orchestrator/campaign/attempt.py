"""One attempt of a run: make the cluster ready, open the windows, bring home what is left of it.

Nothing here is resumed: any error ends the attempt and the run loop decides about the next. Between the start of the
first window and the end of the last nothing but the window's own job touches a node, and that job is asked for at the
start of the gap before its window. What is brought home afterwards needs no node, so that the next attempt can
make the cluster ready meanwhile.
"""

import asyncio
import concurrent.futures
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel

from orchestrator.benchmarks.records import SuiteResult
from orchestrator.campaign.calls import Caller
from orchestrator.campaign.cluster import Cluster
from orchestrator.campaign.lab import Lab
from orchestrator.campaign.measured import AttemptPlace, Measured
from orchestrator.campaign.preparation import Variant
from orchestrator.campaign.steady_state import wait_steady
from orchestrator.campaign.topology import SCORING_ENGINE, nodes_of
from orchestrator.domain.campaign.schedule import PlannedRun
from orchestrator.domain.campaign.spec import CampaignSpec, WorkloadSpec
from orchestrator.domain.campaign.steady_state import SteadyStateWait
from orchestrator.domain.run.records import ServedBy
from shared.kernel.clock import NS_PER_S, utc_ns
from shared.kernel.errors import InfrastructureError
from shared.kernel.records import EngineName, TokenLedger, Window, WindowLabel
from shared.wire.meter_api import MeterStatus, SampleBlock
from shared.wire.node_jobs.activity import AgentActivity, activity_between
from shared.wire.node_jobs.engines import EngineInfo
from shared.wire.node_jobs.host import NodeFacts, SteadyGateParams, SteadyGateResult
from shared.wire.node_jobs.workloads import (
    DecodeParams,
    GenerateParams,
    GenerateResult,
    MarkerResult,
    PrefillParams,
    ScoreParams,
    ScoreResult,
    WorkloadResult,
)

if TYPE_CHECKING:
    from orchestrator.benchmarks.suite import BenchmarkSuite

_METER_MARGIN_S = 0.3
"""Trace kept on both sides of the windows beyond the lag, so that their edges can be interpolated after the shift."""

R = TypeVar("R", bound=BaseModel)


class AttemptRunner:
    """Measures one attempt."""

    def __init__(
        self,
        lab: Lab,
        caller: Caller,
        spec: CampaignSpec,
        suite: "BenchmarkSuite",
        able: Mapping[EngineName, EngineInfo],
        on_step: Callable[[str, str], None],
    ) -> None:
        self._lab = lab
        self._caller = caller
        self._spec = spec
        self._timeouts = spec.timeouts
        self._suite = suite
        self._on_step = on_step
        self._able = able
        self._cluster = Cluster(lab, caller, spec)
        self._scoring: asyncio.Task[SuiteResult] | None = None

    def place(self, planned: PlannedRun, number: int) -> AttemptPlace:
        """Return where the attempt `number` of a run takes place."""
        nodes = nodes_of(planned.configuration, list(self._lab.nodes))
        return AttemptPlace(planned.run, number, planned.configuration, planned.repetition, nodes)

    async def ready(self, place: AttemptPlace, variant: Variant) -> Measured:
        """Bring the variant to the root node and load it over the workers.

        Raises:
            EpiError: an agent failed or the meter is dead; the attempt is over.
        """
        self._on_step(place.run, "deploy")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._living_meter())
                deliveries = group.create_task(self._cluster.deploy(place, variant))
                workers = group.create_task(self._cluster.start_workers(place))
        except ExceptionGroup as broken:
            raise broken.exceptions[0] from None
        self._on_step(place.run, "start_engine")
        served = await self._cluster.start_engine(
            place, "start_engine", place.configuration.engine, variant.measured, workers.result()
        )
        by_label: dict[WindowLabel, ServedBy] = dict.fromkeys(("idle", "prefill", "decode", "score"), served)
        return Measured(place=place, variant=variant, deliveries=deliveries.result(), served=by_label)

    async def measure(self, measured: Measured) -> None:
        """Let the cluster settle and open all windows; when this returns, the attempt needs no node any more.

        Raises:
            EpiError: an agent failed or the meter is dead; the attempt is over.
        """
        place = measured.place
        measured.steady_state = await self._wait_steady(measured.place)
        with self._lab.window():
            before = await self._idle(measured)
            await self._marker(measured)
            await self._prefill(measured)
            await self._decode(measured)
            await self._score(measured)
        measured.facts_after, after = await asyncio.gather(self._facts(place), self._activity(place))
        measured.agent_activity = {name: activity_between(before[name], after[name]) for name in before}
        self._cluster.was_healthy(place)

    async def await_results(self, measured: Measured) -> None:
        """Wait for the benchmark's bookkeeping and for the power trace.

        Raises:
            EpiError: the meter's bridge failed; the attempt is over.
        """
        assert measured.scoring is not None
        measured.suite = suite = await measured.scoring
        self._window(measured, "score", suite.start_utc_ns, suite.end_utc_ns, suite.ledger)
        measured.samples = await self._trace(measured.windows)

    async def _living_meter(self) -> MeterStatus:
        status = await self._lab.meter_status()
        if not status.connected:
            raise InfrastructureError(
                f"the meter is silent: {'; '.join(status.problems) or 'not connected'}",
                where=status.instrument.name, hint="check the meter's cable and power; `epi meter status` tells more",
            )  # fmt: skip
        return status

    async def _wait_steady(self, place: AttemptPlace) -> SteadyStateWait:
        self._on_step(place.run, "steady_state")
        await self._caller.note(place.run, place.number, "steady_state")

        async def ask(node: str, gate: SteadyGateParams) -> SteadyGateResult:
            timeout_s = self._timeouts.steady_state(gate)
            return await self._cluster.job(
                place, "steady_state", "wait_steady", gate, SteadyGateResult, timeout_s, node=node
            )

        return await wait_steady(self._lab, place.nodes, ask, self._spec.windows.steady_state)

    async def _idle(self, measured: Measured) -> dict[str, AgentActivity]:
        """Look at all nodes in the gap and leave them idle; return what their agents had done until then."""
        place = measured.place
        self._on_step(place.run, "idle")
        await self._caller.note(place.run, place.number, "idle")
        gap = asyncio.create_task(asyncio.sleep(self._spec.windows.gap_before_window_s))
        measured.clock_offset_ns = await self._lab.clock_offset_ns(place.root)
        measured.meter, measured.facts_before, before = await asyncio.gather(
            self._living_meter(), self._facts(place), self._activity(place)
        )
        await gap
        start = utc_ns()
        await asyncio.sleep(self._spec.windows.idle_s)
        measured.windows.append(Window(label="idle", start_utc_ns=start, end_utc_ns=utc_ns()))
        return before

    async def _marker(self, measured: Measured) -> None:
        wanted = self._spec.windows.marker
        timeout_s = self._timeouts.marker(wanted)
        marker = await self._after_gap(measured.place, "marker", wanted, MarkerResult, timeout_s)
        offset = measured.clock_offset_ns
        measured.marker = MarkerResult(
            start_utc_ns=marker.start_utc_ns - offset, end_utc_ns=marker.end_utc_ns - offset,
            on=tuple((start - offset, end - offset) for start, end in marker.on),
        )  # fmt: skip
        self._window(measured, "marker", marker.start_utc_ns, marker.end_utc_ns, node=measured.place.root)

    async def _prefill(self, measured: Measured) -> None:
        for part, work in enumerate(self._requests(measured.place, self._spec.windows.prefill), start=1):
            params = PrefillParams(**work)
            timeout_s = self._timeouts.prefill(len(params.prompts) * params.tokens_each * params.repeats)
            await self._work(measured, "prefill", params, timeout_s, part)

    async def _decode(self, measured: Measured) -> None:
        for part, work in enumerate(self._requests(measured.place, self._spec.windows.decode), start=1):
            params = DecodeParams(**work)
            timeout_s = self._timeouts.decode(params.prompts, params.tokens_each, params.repeats)
            result = await self._work(measured, "decode", params, timeout_s, part)
            if result.output_sha256 is not None:
                measured.outputs.append(result.output_sha256)

    async def _work(
        self, measured: Measured, label: Literal["prefill", "decode"], params: PrefillParams | DecodeParams,
        timeout_s: float, part: int,
    ) -> WorkloadResult:  # fmt: skip
        result = await self._after_gap(measured.place, label, params, WorkloadResult, timeout_s, part)
        _keep_least_quiet(measured, label, result)
        self._window(measured, label, result.start_utc_ns, result.end_utc_ns, result.ledger)
        return result

    def _requests(self, place: AttemptPlace, workload: WorkloadSpec) -> list[dict[str, Any]]:
        """Return the workload as jobs: one, or one for each request where the engine takes no more in a workload."""
        prompts = self._lab.prompts(workload.prompts)
        whole = {"prompts": prompts, "tokens_each": workload.tokens_each, "repeats": workload.repeats}
        most = self._able[place.configuration.engine].requests_per_workload
        if most is None or len(prompts) * workload.repeats <= most:
            return [whole]
        return [{**whole, "prompts": (prompt,), "repeats": 1} for _ in range(workload.repeats) for prompt in prompts]

    async def _score(self, measured: Measured) -> None:
        """Let the benchmark ask its questions; returns when the nodes have answered, while it still counts."""
        if self._scoring is not None:
            await asyncio.wait((self._scoring,))  # of a broken attempt: the suite does one thing at a time
        place = measured.place
        if place.configuration.engine != SCORING_ENGINE:
            measured.served["score"] = await self._cluster.serve_scoring(place, measured.variant.scored)
        loop = asyncio.get_running_loop()
        asked: list[concurrent.futures.Future[Any]] = []
        left = self._suite.n_jobs
        answered = asyncio.Event()

        async def ask(kind: Literal["score", "generate"], params: BaseModel, result: type[R], timeout_s: float) -> R:
            nonlocal left
            gap_s = self._spec.windows.gap_before_window_s if len(asked) == 1 else 0.0
            self._on_step(place.run, "score")
            answer = await self._cluster.job(place, "score", kind, params, result, timeout_s, delay_s=gap_s)
            _keep_least_quiet(measured, "score", answer)
            left -= 1
            if not left:
                answered.set()
            return answer

        def score(params: ScoreParams) -> ScoreResult:
            job = ask("score", params, ScoreResult, self._timeouts.score(params))
            asked.append(asyncio.run_coroutine_threadsafe(job, loop))
            return ScoreResult.model_validate(asked[-1].result())

        def generate(params: GenerateParams) -> GenerateResult:
            job = ask("generate", params, GenerateResult, self._timeouts.generate(params))
            asked.append(asyncio.run_coroutine_threadsafe(job, loop))
            return GenerateResult.model_validate(asked[-1].result())

        scoring = asyncio.create_task(asyncio.to_thread(self._suite.run, score, generate))
        measured.scoring = self._scoring = scoring
        waiting = asyncio.create_task(answered.wait())
        try:
            await asyncio.wait((scoring, waiting), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            for future in asked:
                future.cancel()
            raise
        finally:
            waiting.cancel()
        if not answered.is_set():
            await scoring  # it raises what went wrong

    def _window(
        self,
        measured: Measured,
        label: WindowLabel,
        start_utc_ns: int,
        end_utc_ns: int,
        ledger: TokenLedger | None = None,
        node: str | None = None,
    ) -> None:
        """Add a window told in the root node's time, in the orchestrator's time."""
        offset = measured.clock_offset_ns
        measured.windows.append(
            Window(
                label=label, start_utc_ns=start_utc_ns - offset, end_utc_ns=end_utc_ns - offset,
                ledger=ledger or TokenLedger(), node=node,
            )
        )  # fmt: skip

    async def _after_gap(
        self, place: AttemptPlace, step: Literal["marker", "prefill", "decode"], params: BaseModel, result: type[R],
        timeout_s: float, part: int = 1,
    ) -> R:  # fmt: skip
        """Do a window's job after the gap before it; all talk about the job falls into the gap."""
        self._on_step(place.run, step)
        gap_s = self._spec.windows.gap_before_window_s
        return await self._cluster.job(place, step, step, params, result, timeout_s, delay_s=gap_s, part=part)

    async def _trace(self, windows: list[Window]) -> SampleBlock:
        before_s, after_s = self._spec.lag_range_s
        start = min(window.start_utc_ns for window in windows) + int((before_s - _METER_MARGIN_S) * NS_PER_S)
        end = max(window.end_utc_ns for window in windows) + int((after_s + _METER_MARGIN_S) * NS_PER_S)
        await asyncio.sleep(max(0.0, (end - utc_ns()) / NS_PER_S))
        return await self._lab.samples(start, end)

    async def _facts(self, place: AttemptPlace) -> dict[str, NodeFacts]:
        names = place.nodes
        return dict(zip(names, await asyncio.gather(*(self._lab.facts(name) for name in names)), strict=True))

    async def _activity(self, place: AttemptPlace) -> dict[str, AgentActivity]:
        names = place.nodes
        return dict(zip(names, await asyncio.gather(*(self._lab.activity(name) for name in names)), strict=True))


def _keep_least_quiet(measured: Measured, label: WindowLabel, result: BaseModel) -> None:
    """Keep what the root's agent did in a window; of several windows of one label, in the least silent one."""
    if not isinstance(result, WorkloadResult | ScoreResult | GenerateResult) or result.agent is None:
        return
    known = measured.window_agent_activity.get(label)
    if known is None or known.agent_cpu_share < result.agent.agent_cpu_share:
        measured.window_agent_activity[label] = result.agent
