"""One attempt of a run: deploy, start the engine, then the windows idle, marker, prefill, decode and score.

Nothing here is resumed: any error ends the attempt and the runner decides about the next. Between the start of the
first window and the end of the last nothing but the window's own job touches a node.
"""

import asyncio
import concurrent.futures
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel

from orchestrator.benchmarks.records import SuiteResult
from orchestrator.campaign.calls import Call, Caller
from orchestrator.campaign.lab import Lab
from orchestrator.campaign.preparation import Variant
from orchestrator.domain.spec import CampaignSpec, WorkloadSpec
from orchestrator.domain.steps import RunStep
from shared.clock import NS_PER_S, utc_ns
from shared.errors import InfrastructureError
from shared.meter_api import MeterStatus, SampleBlock
from shared.node_jobs.activity import AgentActivity, activity_between
from shared.node_jobs.artifacts import DeployParams, DeployResult
from shared.node_jobs.engines import (
    Empty,
    StartEngineParams,
    StartEngineResult,
    StartWorkerParams,
    StartWorkerResult,
    StopEngineParams,
)
from shared.node_jobs.host import NodeFacts
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
    deploy: DeployResult
    windows: list[Window] = field(default_factory=list)
    marker: MarkerResult | None = None
    prefill: WorkloadResult | None = None
    decode: WorkloadResult | None = None
    suite: SuiteResult | None = None
    samples: SampleBlock | None = None
    meter: MeterStatus | None = None
    facts_before: dict[str, NodeFacts] = field(default_factory=dict)
    facts_after: dict[str, NodeFacts] = field(default_factory=dict)
    silence: dict[str, AgentActivity] = field(default_factory=dict)
    clock_offset_ns: int = 0


class AttemptRunner:
    """Measures one attempt."""

    def __init__(
        self, lab: Lab, caller: Caller, spec: CampaignSpec, suite: "BenchmarkSuite", on_step: Callable[[str, str], None]
    ) -> None:
        self._lab = lab
        self._caller = caller
        self._spec = spec
        self._suite = suite
        self._on_step = on_step

    async def measure(self, place: AttemptPlace, variant: Variant) -> Measured:
        """Deploy the variant, open all windows and bring back trace, ledgers and answers.

        Raises:
            EpiError: an agent failed or the meter is dead; the attempt is over.
        """
        meter = await self._living_meter()
        deploy = await self._root(place, "deploy", "deploy", DeployParams(
            base_sha256=variant.base_sha256, plan=variant.plan.plan, expected_sha256=variant.file.sha256,
        ), DeployResult)  # fmt: skip
        engine = await self._start_engine(place, deploy)
        measured = Measured(place=place, engine=engine, deploy=deploy, meter=meter)
        measured.clock_offset_ns = await self._lab.clock_offset_ns(self._lab.root_name)
        measured.facts_before = await self._facts()
        before = await self._activity()
        with self._lab.window():
            await self._idle(measured)
            await self._marker(measured)
            await self._prefill(measured)
            await self._decode(measured)
            await self._score(measured)
        after = await self._activity()
        measured.silence = {name: activity_between(before[name], after[name]) for name in before}
        measured.facts_after = await self._facts()
        measured.samples = await self._trace(measured.windows)
        return measured

    async def _living_meter(self) -> MeterStatus:
        status = await self._lab.meter_status()
        if not status.connected:
            raise InfrastructureError(
                f"the meter is silent: {'; '.join(status.problems) or 'not connected'}",
                where=status.instrument.name, hint="check the meter's cable and power; `epi meter status` tells more",
            )  # fmt: skip
        return status

    async def _start_engine(self, place: AttemptPlace, deploy: DeployResult) -> StartEngineResult:
        """Free the workers of the last client, make sure that all live, and load the model over them."""
        await self._job(place, "start_engine", self._lab.root_name, "stop_engine", StopEngineParams(), Empty)
        workers = await asyncio.gather(
            *(
                self._job(place, "start_engine", name, "start_worker", StartWorkerParams(), StartWorkerResult)
                for name in self._node_names(place.configuration)
            )
        )
        return await self._job(place, "start_engine", self._lab.root_name, "start_engine", StartEngineParams(
            model_sha256=deploy.sha256, workers=tuple(worker.endpoint for worker in workers),
            context_tokens=self._spec.engine.context_tokens, sequences=self._spec.engine.sequences,
            threads=self._spec.engine.threads, experts_per_token=place.configuration.experts_per_token,
        ), StartEngineResult)  # fmt: skip

    def _node_names(self, configuration: Configuration) -> list[str]:
        names = list(self._lab.nodes)
        return names[: configuration.n_nodes] if configuration.n_nodes else names

    async def _idle(self, measured: Measured) -> None:
        await self._settle(measured.place, "idle")
        await self._caller.note(measured.place.run, measured.place.number, "idle")
        start = utc_ns()
        await asyncio.sleep(self._spec.windows.idle_s)
        measured.windows.append(Window(label="idle", start_utc_ns=start, end_utc_ns=utc_ns()))

    async def _marker(self, measured: Measured) -> None:
        await self._settle(measured.place, "marker")
        marker = await self._root(measured.place, "marker", "marker", self._spec.windows.marker, MarkerResult)
        offset = measured.clock_offset_ns
        measured.marker = MarkerResult(
            start_utc_ns=marker.start_utc_ns - offset, end_utc_ns=marker.end_utc_ns - offset,
            on=tuple((start - offset, end - offset) for start, end in marker.on),
        )  # fmt: skip
        self._window(measured, "marker", marker.start_utc_ns, marker.end_utc_ns, node=self._lab.root_name)

    async def _prefill(self, measured: Measured) -> None:
        await self._settle(measured.place, "prefill")
        params = PrefillParams(**self._workload(self._spec.windows.prefill))
        result = await self._root(measured.place, "prefill", "prefill", params, WorkloadResult)
        measured.prefill = result
        self._window(measured, "prefill", result.start_utc_ns, result.end_utc_ns, result.ledger)

    async def _decode(self, measured: Measured) -> None:
        await self._settle(measured.place, "decode")
        params = DecodeParams(**self._workload(self._spec.windows.decode))
        result = await self._root(measured.place, "decode", "decode", params, WorkloadResult)
        measured.decode = result
        self._window(measured, "decode", result.start_utc_ns, result.end_utc_ns, result.ledger)

    async def _score(self, measured: Measured) -> None:
        await self._settle(measured.place, "score")
        loop = asyncio.get_running_loop()

        asked: list[concurrent.futures.Future[ScoreResult]] = []

        def score(params: ScoreParams) -> ScoreResult:
            job = self._root(measured.place, "score", "score", params, ScoreResult)
            asked.append(asyncio.run_coroutine_threadsafe(job, loop))
            return asked[-1].result()

        try:
            suite = await asyncio.to_thread(self._suite.run, score)
        except asyncio.CancelledError:
            for future in asked:
                future.cancel()
            raise
        measured.suite = suite
        self._window(measured, "score", suite.start_utc_ns, suite.end_utc_ns, suite.ledger)

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

    async def _settle(self, place: AttemptPlace, step: RunStep) -> None:
        self._on_step(place.run, step)
        await asyncio.sleep(self._spec.windows.settle_s)

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

    async def _root(self, place: AttemptPlace, step: RunStep, kind: str, params: BaseModel, result: type[R]) -> R:
        return await self._job(place, step, self._lab.root_name, kind, params, result)

    async def _job(
        self, place: AttemptPlace, step: RunStep, agent: str, kind: str, params: BaseModel, result: type[R]
    ) -> R:
        call = Call(agent, self._lab.nodes[agent], kind, params, timeout_s=24 * 3600.0)
        return await self._caller.once(place.run, place.number, step, call, result)
