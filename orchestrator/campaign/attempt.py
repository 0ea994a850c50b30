"""One attempt of a run: make the cluster ready, open the windows, bring home what is left of it.

Nothing here is resumed: any error ends the attempt and the run loop decides about the next. Between the start of the
first window and the end of the last nothing but the window's own job touches a node, and that job is asked for at the
start of the stillness before its window. What is brought home afterwards needs no node, so that the next attempt can
make the cluster ready meanwhile.
"""

import asyncio
import concurrent.futures
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import BaseModel

from orchestrator.benchmarks.records import SuiteResult
from orchestrator.campaign.calls import Call, Caller
from orchestrator.campaign.lab import Lab
from orchestrator.campaign.preparation import Variant
from orchestrator.campaign.stabilise import stabilise
from orchestrator.domain.spec import CampaignSpec, WorkloadSpec
from orchestrator.domain.stabilisation import Stabilisation
from orchestrator.domain.steps import RunStep, Step
from shared.clock import NS_PER_S, utc_ns
from shared.errors import InfrastructureError
from shared.meter_api import MeterStatus, SampleBlock
from shared.node_jobs.activity import AgentActivity, activity_between
from shared.node_jobs.artifacts import HoldParams, HoldResult, ObtainParams, ObtainResult
from shared.node_jobs.engines import (
    Empty,
    StartEngineParams,
    StartEngineResult,
    StartWorkerParams,
    StartWorkerResult,
    StopEngineParams,
)
from shared.node_jobs.host import NodeFacts, SettleParams, SettleResult
from shared.node_jobs.workloads import (
    DecodeParams,
    MarkerResult,
    PrefillParams,
    ScoreParams,
    ScoreResult,
    WorkloadResult,
)
from shared.records import Configuration, TokenLedger, Window, WindowLabel

if TYPE_CHECKING:
    from orchestrator.benchmarks.suite import BenchmarkSuite

_METER_MARGIN_S = 0.3
"""Trace kept on both sides of the windows beyond the lag, so that their edges can be interpolated after the shift."""

R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True)
class AttemptPlace:
    """Which attempt this is."""

    run: str
    number: int
    configuration: Configuration
    repetition: int


@dataclass
class Measured:
    """Everything that an attempt brings home."""

    place: AttemptPlace
    engine: StartEngineResult
    deliveries: dict[str, ObtainResult]
    stabilisation: Stabilisation | None = None
    windows: list[Window] = field(default_factory=list)
    marker: MarkerResult | None = None
    prefill: WorkloadResult | None = None
    decode: WorkloadResult | None = None
    answering: asyncio.Task[SuiteResult] | None = None
    suite: SuiteResult | None = None
    samples: SampleBlock | None = None
    meter: MeterStatus | None = None
    facts_before: dict[str, NodeFacts] = field(default_factory=dict)
    facts_after: dict[str, NodeFacts] = field(default_factory=dict)
    silence: dict[str, AgentActivity] = field(default_factory=dict)
    window_silence: dict[WindowLabel, AgentActivity] = field(default_factory=dict)
    clock_offset_ns: int = 0


class AttemptRunner:
    """Measures one attempt."""

    def __init__(
        self, lab: Lab, caller: Caller, spec: CampaignSpec, suite: "BenchmarkSuite", on_step: Callable[[str, str], None]
    ) -> None:
        self._lab = lab
        self._caller = caller
        self._spec = spec
        self._timeouts = spec.timeouts
        self._suite = suite
        self._on_step = on_step
        self._warm = False
        self._answering: asyncio.Task[SuiteResult] | None = None

    async def ready(self, place: AttemptPlace, variant: Variant) -> Measured:
        """Bring the variant to the root node and load it over the workers.

        Raises:
            EpiError: an agent failed or the meter is dead; the attempt is over.
        """
        warm, self._warm = self._warm, False  # whatever goes wrong from here on leaves the engine in doubt
        self._on_step(place.run, "deploy")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._living_meter())
                deliveries = group.create_task(self._deploy(place, variant))
                workers = group.create_task(self._start_workers(place, warm=warm))
        except ExceptionGroup as broken:
            raise broken.exceptions[0] from None
        self._on_step(place.run, "start_engine")
        engine = await self._root(place, "start_engine", "start_engine", StartEngineParams(
            model_sha256=variant.file.sha256, workers=workers.result(),
            context_tokens=self._spec.engine.context_tokens, sequences=self._spec.engine.sequences,
            threads=self._spec.engine.threads, experts_per_token=place.configuration.experts_per_token,
        ), StartEngineResult, self._timeouts.transfer("start_engine", variant.file.size_bytes))  # fmt: skip
        return Measured(place=place, engine=engine, deliveries=deliveries.result())

    async def measure(self, measured: Measured) -> None:
        """Let the cluster settle and open all windows; when this returns, the attempt needs no node any more.

        Raises:
            EpiError: an agent failed or the meter is dead; the attempt is over.
        """
        measured.stabilisation = await self._stabilise(measured.place)
        with self._lab.window():
            before = await self._idle(measured)
            await self._marker(measured)
            await self._prefill(measured)
            await self._decode(measured)
            await self._score(measured)
        measured.facts_after, after = await asyncio.gather(self._facts(), self._activity())
        measured.silence = {name: activity_between(before[name], after[name]) for name in before}
        self._warm = True

    async def bring_home(self, measured: Measured) -> None:
        """Wait for the benchmark's bookkeeping and for the power trace.

        Raises:
            EpiError: the meter's bridge failed; the attempt is over.
        """
        assert measured.answering is not None
        measured.suite = suite = await measured.answering
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

    async def _deploy(self, place: AttemptPlace, variant: Variant) -> dict[str, ObtainResult]:
        """Bring the variant to the root, the only node that reads model files, in the cheapest way that works."""
        base, root = variant.base.wish, self._lab.root_name
        needed = HoldParams(holder=self._spec.id, sha256s=(base.sha256, variant.wish.sha256))
        held = await self._root(place, "deploy", "hold", needed, HoldResult, self._timeouts.handling("deploy"))
        if base.sha256 in held.missing and base.sha256 != variant.wish.sha256:
            await self._obtain(place, "obtain_base", root, base)
        return {root: await self._obtain(place, "deploy", root, variant.wish)}

    async def _obtain(self, place: AttemptPlace, step: Step, node: str, wish: ObtainParams) -> ObtainResult:
        call = self._call(node, "obtain", wish, self._timeouts.obtain(step, wish.size_bytes))
        delivery = await self._job(place, step, call, ObtainResult)
        await self._caller.came_of(place.run, place.number, step, node, delivery)
        return delivery

    async def _stabilise(self, place: AttemptPlace) -> Stabilisation:
        self._on_step(place.run, "stabilise")
        await self._caller.note(place.run, place.number, "stabilise")

        async def ask(node: str, gate: SettleParams) -> SettleResult:
            call = self._call(node, "settle", gate, self._timeouts.stabilise(gate))
            return await self._job(place, "stabilise", call, SettleResult)

        return await stabilise(self._lab, ask, self._spec.windows.stabilisation)

    async def _start_workers(self, place: AttemptPlace, *, warm: bool) -> tuple[str, ...]:
        """Make sure that all workers live, and return their endpoints.

        An engine process that has just served a whole attempt loads the next model itself, which saves its start; one
        of unknown history is ended first, which also frees the workers of it.
        """
        handling_s = self._timeouts.handling("start_engine")
        if not warm:
            await self._root(place, "start_engine", "stop_engine", StopEngineParams(), Empty, handling_s)
        workers = await asyncio.gather(
            *(
                self._job(
                    place, "start_engine", self._call(name, "start_worker", StartWorkerParams(), handling_s),
                    StartWorkerResult,
                )
                for name in self._node_names(place.configuration)
            )
        )  # fmt: skip
        return tuple(worker.endpoint for worker in workers)

    def _node_names(self, configuration: Configuration) -> list[str]:
        names = list(self._lab.nodes)
        return names[: configuration.n_nodes] if configuration.n_nodes else names

    async def _idle(self, measured: Measured) -> dict[str, AgentActivity]:
        """Look at all nodes in the stillness and leave them idle; return what their agents had done until then."""
        place = measured.place
        self._on_step(place.run, "idle")
        await self._caller.note(place.run, place.number, "idle")
        stillness = asyncio.create_task(asyncio.sleep(self._spec.windows.settle_s))
        measured.clock_offset_ns = await self._lab.clock_offset_ns(self._lab.root_name)
        measured.meter, measured.facts_before, before = await asyncio.gather(
            self._living_meter(), self._facts(), self._activity()
        )
        await stillness
        start = utc_ns()
        await asyncio.sleep(self._spec.windows.idle_s)
        measured.windows.append(Window(label="idle", start_utc_ns=start, end_utc_ns=utc_ns()))
        return before

    async def _marker(self, measured: Measured) -> None:
        wanted = self._spec.windows.marker
        timeout_s = self._timeouts.marker(wanted)
        marker = await self._still(measured.place, "marker", wanted, MarkerResult, timeout_s)
        offset = measured.clock_offset_ns
        measured.marker = MarkerResult(
            start_utc_ns=marker.start_utc_ns - offset, end_utc_ns=marker.end_utc_ns - offset,
            on=tuple((start - offset, end - offset) for start, end in marker.on),
        )  # fmt: skip
        self._window(measured, "marker", marker.start_utc_ns, marker.end_utc_ns, node=self._lab.root_name)

    async def _prefill(self, measured: Measured) -> None:
        params = PrefillParams(**self._workload(self._spec.windows.prefill))
        timeout_s = self._timeouts.prefill(len(params.prompts) * params.tokens_each * params.repeats)
        measured.prefill = result = await self._still(measured.place, "prefill", params, WorkloadResult, timeout_s)
        _keep_silence(measured, "prefill", result)
        self._window(measured, "prefill", result.start_utc_ns, result.end_utc_ns, result.ledger)

    async def _decode(self, measured: Measured) -> None:
        params = DecodeParams(**self._workload(self._spec.windows.decode))
        timeout_s = self._timeouts.decode(params.prompts, params.tokens_each, params.repeats)
        measured.decode = result = await self._still(measured.place, "decode", params, WorkloadResult, timeout_s)
        _keep_silence(measured, "decode", result)
        self._window(measured, "decode", result.start_utc_ns, result.end_utc_ns, result.ledger)

    async def _score(self, measured: Measured) -> None:
        """Let the benchmark ask its questions; returns when the nodes have answered, while it still counts."""
        if self._answering is not None:
            await asyncio.wait((self._answering,))  # of a broken attempt: the suite does one thing at a time
        loop = asyncio.get_running_loop()
        asked: list[concurrent.futures.Future[ScoreResult]] = []
        answered = asyncio.Event()

        async def ask(params: ScoreParams) -> ScoreResult:
            timeout_s = self._timeouts.score(params)
            result = await self._still(measured.place, "score", params, ScoreResult, timeout_s)
            _keep_silence(measured, "score", result)
            answered.set()
            return result

        def score(params: ScoreParams) -> ScoreResult:
            asked.append(asyncio.run_coroutine_threadsafe(ask(params), loop))
            return asked[-1].result()

        answering = asyncio.create_task(asyncio.to_thread(self._suite.run, score))
        measured.answering = self._answering = answering
        waiting = asyncio.create_task(answered.wait())
        try:
            await asyncio.wait((answering, waiting), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            for future in asked:
                future.cancel()
            raise
        finally:
            waiting.cancel()
        if not answered.is_set():
            await answering  # it raises what went wrong

    def _workload(self, workload: WorkloadSpec) -> dict[str, object]:
        return {
            "prompts": self._lab.prompts(workload.prompts),
            "tokens_each": workload.tokens_each,
            "repeats": workload.repeats,
        }

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

    async def _still(
        self, place: AttemptPlace, step: Literal["marker", "prefill", "decode", "score"], params: BaseModel,
        result: type[R], timeout_s: float,
    ) -> R:  # fmt: skip
        """Do a window's job after the stillness before it; all talk about the job falls into the stillness."""
        self._on_step(place.run, step)
        call = self._call(self._lab.root_name, step, params, timeout_s, delay_s=self._spec.windows.settle_s)
        return await self._job(place, step, call, result)

    async def _trace(self, windows: list[Window]) -> SampleBlock:
        before_s, after_s = self._spec.lag_range_s
        start = min(window.start_utc_ns for window in windows) + int((before_s - _METER_MARGIN_S) * NS_PER_S)
        end = max(window.end_utc_ns for window in windows) + int((after_s + _METER_MARGIN_S) * NS_PER_S)
        await asyncio.sleep(max(0.0, (end - utc_ns()) / NS_PER_S))
        return await self._lab.samples(start, end)

    async def _facts(self) -> dict[str, NodeFacts]:
        names = list(self._lab.nodes)
        return dict(zip(names, await asyncio.gather(*(self._lab.facts(name) for name in names)), strict=True))

    async def _activity(self) -> dict[str, AgentActivity]:
        names = list(self._lab.nodes)
        return dict(zip(names, await asyncio.gather(*(self._lab.activity(name) for name in names)), strict=True))

    async def _root(
        self, place: AttemptPlace, step: RunStep, kind: str, params: BaseModel, result: type[R], timeout_s: float
    ) -> R:
        return await self._job(place, step, self._call(self._lab.root_name, kind, params, timeout_s), result)

    async def _job(self, place: AttemptPlace, step: Step, call: Call, result: type[R]) -> R:
        return await self._caller.once(place.run, place.number, step, call, result)

    def _call(self, agent: str, kind: str, params: BaseModel, timeout_s: float, *, delay_s: float = 0.0) -> Call:
        return Call(agent, self._lab.nodes[agent], kind, params, timeout_s, delay_s)


def _keep_silence(measured: Measured, label: WindowLabel, result: WorkloadResult | ScoreResult) -> None:
    if result.agent is not None:
        measured.window_silence[label] = result.agent
