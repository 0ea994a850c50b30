"""One attempt of a run: make the cluster ready, open the windows, gather what was measured.

Nothing here is resumed: any error ends the attempt and the run loop decides about the next. Between the start of the
first window and the end of the last nothing but the window's own job touches a node, and that job is asked for at the
start of the gap before its window. What is gathered afterwards needs no node, so that the next attempt can
make the cluster ready meanwhile.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, TypeVar

from pydantic import BaseModel

from orchestrator.campaign.cluster import Cluster
from orchestrator.campaign.context import CampaignContext
from orchestrator.campaign.measured import (
    AttemptPlace,
    ClosedWindows,
    IdleWindow,
    LoadedModel,
    MeasuredRun,
    ScoreWindow,
    hash_of_outputs,
)
from orchestrator.campaign.node_loads import NodeLoads
from orchestrator.campaign.pins import SurgeonPins
from orchestrator.campaign.preparation import Variant
from orchestrator.campaign.questions import Questions
from orchestrator.campaign.steady_state import wait_steady
from orchestrator.campaign.topology import nodes_of, scorer_of
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.schedule import PlannedRun
from orchestrator.domain.campaign.spec import WorkloadSpec
from orchestrator.domain.campaign.steady_state import SteadyStateWait
from shared.kernel.clock import NS_PER_S, utc_ns
from shared.kernel.errors import InfrastructureError
from shared.kernel.records import EngineName, NodeName, Window
from shared.wire.meter_api import MeterStatus
from shared.wire.node_jobs.activity import activity_between
from shared.wire.node_jobs.engines import EngineInfo
from shared.wire.node_jobs.host import SteadyGateParams, SteadyGateResult
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

log = logging.getLogger(__name__)

_METER_MARGIN_S = 0.3
"""Trace kept on both sides of the windows beyond the lag, so that their edges can be interpolated after the shift."""

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")
Answer = TypeVar("Answer", ScoreResult, GenerateResult)


class AttemptRunner:
    """Measures one attempt after the other."""

    def __init__(
        self,
        context: CampaignContext,
        pins: SurgeonPins,
        questions: Questions,
        able: Mapping[EngineName, EngineInfo],
        on_step: Callable[[RunReference, str], None],
    ) -> None:
        self._lab = context.lab
        self._caller = context.caller
        self._spec = context.spec
        self._timeouts = context.spec.timeouts
        self._on_step = on_step
        self._able = able
        self._cluster = Cluster(context, pins)
        self._questions = questions

    def place(self, planned: PlannedRun, number: int) -> AttemptPlace:
        """Return where the attempt `number` of a run takes place."""
        nodes = nodes_of(planned.configuration, list(self._lab.nodes))
        return AttemptPlace(planned.run, number, planned.configuration, nodes)

    async def load(self, place: AttemptPlace, variant: Variant) -> LoadedModel:
        """Bring the variant to the root node and load it over the workers.

        Raises:
            EpiError: an agent failed or the meter is dead; the attempt is over.
        """
        self._on_step(place.run, "deploy")
        once = self._questions.once
        scores_first = once is not None and scorer_of(place.configuration.engine) != place.configuration.engine
        workers = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._living_meter())
                deliveries = group.create_task(self._cluster.deploy(place, variant))
                if not scores_first:
                    workers = group.create_task(self._cluster.start_workers(place))
        except ExceptionGroup as broken:
            raise broken.exceptions[0] from None
        answers = None
        if once is not None and scores_first:
            answers = await once.answers(self._cluster, place, variant, None)
        endpoints = await self._cluster.start_workers(place) if workers is None else workers.result()
        self._on_step(place.run, "start_engine")
        served = await self._cluster.start_engine(
            place, "start_engine", place.configuration.engine, variant.measured, endpoints
        )
        if once is not None and answers is None:
            answers = await once.answers(self._cluster, place, variant, served)
        return LoadedModel(place, variant, deliveries.result(), served, answers)

    async def measure(self, loaded: LoadedModel) -> ClosedWindows:
        """Wait for the steady state and open all windows; when this returns, the attempt needs no node any more.

        Raises:
            EpiError: an agent failed or the meter is dead; the attempt is over.
        """
        place = loaded.place
        async with self._lab.still():
            steady_state = await self._wait_steady(place)
            log.info("windows open on %s", ", ".join(place.nodes))
            begun = time.monotonic()
            loads = NodeLoads(self._lab, place.nodes)
            with self._lab.window():
                idle = await self._idle(place, loads)
                marker = await self._marker(place, loads)
                prefill = await self._prefill(place, loads)
                decode = await self._decode(place, loads)
                score = await self._score(loaded, loads)
            clocks = await self._of_each(place, self._lab.clock_offset)
        facts, activity = await asyncio.gather(
            self._of_each(place, self._lab.facts), self._of_each(place, self._lab.activity)
        )
        self._cluster.was_healthy(place)
        log.info("windows closed after %.1f s", time.monotonic() - begun)
        return ClosedWindows(
            loaded=loaded, steady_state=steady_state, idle=idle, marker=marker, prefill=prefill, decode=decode,
            score=score, facts_after=facts, activity_after=activity, clocks_after=clocks, loads=loads.told(),
        )  # fmt: skip

    def gather(self, closed: ClosedWindows) -> MeasuredRun:
        """Return all that was measured; the benchmark may still count its answers."""
        windows = closed.windows()
        trace_start_utc_ns, trace_end_utc_ns = self._trace_span(windows)
        before = closed.idle.activity
        return MeasuredRun(
            place=closed.loaded.place,
            variant=closed.loaded.variant,
            deliveries=closed.loaded.deliveries,
            served=closed.served(),
            steady_state=closed.steady_state,
            windows=windows,
            marker=closed.marker_in_our_time(),
            output_sha256=hash_of_outputs(closed.decode),
            window_answers=None if closed.score is None else closed.score.answers,
            answers=closed.loaded.answers or self._questions.answers_of(closed.loaded.place.configuration.id),
            trace_start_utc_ns=trace_start_utc_ns,
            trace_end_utc_ns=trace_end_utc_ns,
            meter=closed.idle.meter,
            facts_before=closed.idle.facts,
            facts_after=closed.facts_after,
            agent_activity={name: activity_between(before[name], closed.activity_after[name]) for name in before},
            window_agent_activity=closed.window_agent_activity(),
            clocks=closed.clocks(),
            window_loads=closed.loads,
        )

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

        async def ask(node: NodeName, gate: SteadyGateParams) -> SteadyGateResult:
            timeout_s = self._timeouts.steady_state(gate)
            return await self._cluster.job(
                place, "steady_state", "wait_steady", gate, SteadyGateResult, timeout_s, node=node
            )

        return await wait_steady(self._lab, place.nodes, ask, self._spec.windows.steady_state)

    async def _idle(self, place: AttemptPlace, loads: NodeLoads) -> IdleWindow:
        """Look at all nodes in the gap and leave them idle."""
        self._on_step(place.run, "idle")
        await self._caller.note(place.run, place.number, "idle")
        gap = asyncio.create_task(asyncio.sleep(self._spec.windows.gap_before_window_s))
        clocks = await self._of_each(place, self._lab.clock_offset)
        meter, facts, activity = await asyncio.gather(
            self._living_meter(), self._of_each(place, self._lab.facts), self._of_each(place, self._lab.activity)
        )  # fmt: skip
        await loads.begin()
        await gap
        start = utc_ns()
        await asyncio.sleep(self._spec.windows.idle_s)
        window = Window(label="idle", start_utc_ns=start, end_utc_ns=utc_ns())
        await loads.end("idle")
        return IdleWindow(window, clocks, meter, facts, activity)

    async def _marker(self, place: AttemptPlace, loads: NodeLoads) -> MarkerResult:
        wanted = self._spec.windows.marker
        return await self._after_gap(place, loads, "marker", wanted, MarkerResult, self._timeouts.marker(wanted))

    async def _prefill(self, place: AttemptPlace, loads: NodeLoads) -> tuple[WorkloadResult, ...]:
        workload, results = self._spec.windows.prefill, []
        for part, (prompts, repeats) in enumerate(self._requests(place, workload), start=1):
            params = PrefillParams(prompts=prompts, tokens_each=workload.tokens_each, repeats=repeats)
            timeout_s = self._timeouts.prefill(len(prompts) * workload.tokens_each * repeats)
            results.append(await self._after_gap(place, loads, "prefill", params, WorkloadResult, timeout_s, part))
        return tuple(results)

    async def _decode(self, place: AttemptPlace, loads: NodeLoads) -> tuple[WorkloadResult, ...]:
        workload, results = self._spec.windows.decode, []
        for part, (prompts, repeats) in enumerate(self._requests(place, workload), start=1):
            params = DecodeParams(prompts=prompts, tokens_each=workload.tokens_each, repeats=repeats)
            timeout_s = self._timeouts.decode(prompts, workload.tokens_each, repeats)
            results.append(await self._after_gap(place, loads, "decode", params, WorkloadResult, timeout_s, part))
        return tuple(results)

    def _requests(self, place: AttemptPlace, workload: WorkloadSpec) -> list[tuple[tuple[str, ...], int]]:
        """Return prompts and repeats of each job: one, or one for each request where the engine takes no more."""
        prompts = self._lab.prompts(workload.prompts)
        most = self._able[place.configuration.engine].requests_per_workload
        if most is None or len(prompts) * workload.repeats <= most:
            return [(prompts, workload.repeats)]
        return [((prompt,), 1) for _ in range(workload.repeats) for prompt in prompts]

    async def _score(self, loaded: LoadedModel, loads: NodeLoads) -> ScoreWindow | None:
        """Let the benchmark ask its questions; returns when the nodes have answered, while it still counts."""
        place, served = loaded.place, loaded.served
        scoring = self._questions.in_window(place)
        if scoring is None:
            return None
        await scoring.wait_for_last()
        if scorer_of(place.configuration.engine) != place.configuration.engine:
            served = await self._cluster.serve_scoring(place, "score", loaded.variant.scored)

        async def ask(kind: Literal["score", "generate"], params: ScoreParams | GenerateParams, result: type[Answer],
                      timeout_s: float, *, first: bool) -> Answer:  # fmt: skip
            self._on_step(place.run, "score")
            gap_s = self._spec.windows.gap_before_window_s if first else 0.0
            return await self._cluster.job(place, "score", kind, params, result, timeout_s, delay_s=gap_s)

        await loads.begin()
        counting, answers = await scoring.ask_all(ask)
        await loads.end("score")
        return ScoreWindow(counting, served, answers)

    async def _after_gap(
        self, place: AttemptPlace, loads: NodeLoads, step: Literal["marker", "prefill", "decode"], params: BaseModel,
        result: type[R], timeout_s: float, part: int = 1,
    ) -> R:  # fmt: skip
        """Do a window's job after the gap before it; all talk about the job falls into the gap."""
        self._on_step(place.run, step)
        gap_s = self._spec.windows.gap_before_window_s
        done = await self._cluster.job(place, step, step, params, result, timeout_s, delay_s=gap_s, part=part)
        await loads.end(step)
        return done

    def _trace_span(self, windows: Sequence[Window]) -> tuple[int, int]:
        """Return start and end of the trace that the windows need, UTC ns."""
        before_s, after_s = self._spec.lag_range_s
        start = min(window.start_utc_ns for window in windows) + int((before_s - _METER_MARGIN_S) * NS_PER_S)
        end = max(window.end_utc_ns for window in windows) + int((after_s + _METER_MARGIN_S) * NS_PER_S)
        return start, end

    async def _of_each(self, place: AttemptPlace, ask: Callable[[NodeName], Awaitable[T]]) -> dict[NodeName, T]:
        names = place.nodes
        return dict(zip(names, await asyncio.gather(*(ask(name) for name in names)), strict=True))
