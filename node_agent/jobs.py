"""What a node can be asked to do: the handlers behind each job kind of shared.wire.node_jobs.

Not here: how an engine works (engines/), how a process is watched (processes), the HTTP surface (app).
"""

import asyncio
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from node_agent.engines.base import Engine, Worker
from node_agent.machine.activity import forget_peak, read_activity
from node_agent.machine.connections import read_connections
from node_agent.machine.governor import set_governor
from node_agent.machine.host import find_engine, read_facts
from node_agent.machine.led import blink
from node_agent.machine.load import LoadWatch
from node_agent.machine.steady_gate import sampler, wait_steady
from node_agent.processes import Supervised, is_stopped
from node_agent.settings import NodeSettings
from node_agent.transfers.loaded_files import LoadedFiles
from node_agent.transfers.methods import fetch
from shared.files.artifacts import ArtifactStore, NoRoomError
from shared.kernel.errors import ConfigurationError, ConflictError, InfrastructureError
from shared.kernel.records import EngineName
from shared.kernel.regular_files import SETTINGS_BYTES, read_text
from shared.llama.build import EngineBuild
from shared.service.health import Problem
from shared.wire.artifact_checks import ArtifactChecks
from shared.wire.artifacts import ArtifactJobs
from shared.wire.engines.registry import SCORING_ENGINE
from shared.wire.job_server import JobContext, JobKind
from shared.wire.node_jobs.activity import AgentActivity, activity_between
from shared.wire.node_jobs.artifacts import FetchParams, FetchResult
from shared.wire.node_jobs.engines import (
    Empty,
    EngineInfo,
    NodeConnections,
    StartEngineParams,
    StartEngineResult,
    StartWorkerParams,
    StartWorkerResult,
    StopEngineParams,
)
from shared.wire.node_jobs.host import (
    BlinkParams,
    BlinkResult,
    NodeFacts,
    SetGovernorParams,
    SetGovernorResult,
    SteadyGateParams,
    SteadyGateResult,
)
from shared.wire.node_jobs.load import LoadReading
from shared.wire.node_jobs.workloads import (
    DecodeParams,
    GenerateParams,
    GenerateResult,
    MarkerParams,
    MarkerResult,
    PrefillParams,
    ScoreParams,
    ScoreResult,
    WorkloadResult,
)

_MARKER_SLACK_S = 30.0
_ENGINE_OWNER = "_engine"  # no campaign can have this name
Done = TypeVar("Done", WorkloadResult, ScoreResult, GenerateResult)


class Node:
    """The node's store, worker and engine, and the jobs that use them."""

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self.store = ArtifactStore(
            settings.artifacts_dir, quota_bytes=settings.artifact_quota_bytes, copies_only=True
        )  # fmt: skip
        self.checks = ArtifactChecks(self.store)
        self._loaded = LoadedFiles(self.store)
        made = {name: table.make_worker(settings.place) for name, table in settings.engines.items()}
        self.workers: dict[EngineName, Worker] = {name: worker for name, worker in made.items() if worker is not None}
        self.engines: dict[EngineName, Engine] = {
            name: table.make_engine(settings.place) for name, table in settings.engines.items()
        }
        self.engine = self.engines[SCORING_ENGINE]
        self._marker: Supervised | None = None
        self._load_watch = LoadWatch()
        self._in_window = False
        self._facts: NodeFacts | None = None
        self._finding_engine: asyncio.Task[EngineBuild | None] | None = None

    async def find_children(self) -> None:
        """Find again what an earlier agent started; a marker load and scratch files left over are removed."""
        self.store.clean_scratch()
        self._find_engine()
        if (worker := Supervised.find("worker", self.settings.state_dir)) is not None:
            command = worker.command()
            owner = next((one for one in self.workers.values() if one.recognises(command)), None)
            if owner is not None:
                owner.adopt(worker)
            else:  # of an engine that this agent does not have any more; it holds the workers' port
                await worker.stop()
        for engine in self.engines.values():
            if await engine.find():
                self.engine = engine
        if (marker := Supervised.find("marker", self.settings.state_dir)) is not None:
            await marker.stop()

    def stopped_children(self) -> list[Problem]:
        """Return what stands still though it runs: somebody stopped it, or a debugger holds it."""
        children = {"engine": self.engine.pid}
        children |= {f"worker of {name}": worker.pid for name, worker in self.workers.items()}
        return [
            Problem(f"the {role.partition(' ')[0]} is stopped (pid {pid}): `kill -CONT {pid}` lets it go on")
            for role, pid in children.items()
            if pid is not None and is_stopped(pid)
        ]

    async def stop_children(self) -> None:
        """End all child processes: the engine first, since it holds connections to workers."""
        await asyncio.gather(*(engine.stop() for engine in self.engines.values()))
        await asyncio.gather(*(worker.stop() for worker in self.workers.values()), self._stop_marker())

    async def _stop_marker(self) -> None:
        if self._marker is not None:
            await self._marker.stop()
            self._marker = None

    def kinds(self) -> list[JobKind[Any, Any]]:
        """Return every job kind of a node."""
        return [
            JobKind("fetch", FetchParams, self.fetch),
            *ArtifactJobs(self.store, own={_ENGINE_OWNER}).kinds(),
            *self.checks.kinds(),
            JobKind("start_worker", StartWorkerParams, self.start_worker),
            JobKind("start_engine", StartEngineParams, self.start_engine),
            JobKind("stop_engine", StopEngineParams, self.stop_engine),
            JobKind("marker", MarkerParams, self.marker, in_window=True),
            JobKind("prefill", PrefillParams, self.prefill, in_window=True),
            JobKind("decode", DecodeParams, self.decode, in_window=True),
            JobKind("score", ScoreParams, self.score, in_window=True),
            JobKind("generate", GenerateParams, self.generate, in_window=True),
            JobKind("set_governor", SetGovernorParams, self.set_governor),
            JobKind("wait_steady", SteadyGateParams, self.wait_steady),
            JobKind("blink", BlinkParams, self.blink, concurrent=True),
        ]

    async def fetch(self, params: FetchParams, job: JobContext) -> FetchResult:
        """Bring an artifact here in the cheapest way; an engine whose model nobody else holds makes room for it."""
        try:
            return await fetch(params, self.store, self.settings, job)
        except NoRoomError:
            if _ENGINE_OWNER not in self.store.pinned():
                raise
            await self.stop_engine(StopEngineParams(), job)
            return await fetch(params, self.store, self.settings, job)

    async def start_worker(self, params: StartWorkerParams, _job: JobContext) -> StartWorkerResult:
        """Start this node's worker for an engine or keep the running one; another engine's worker is ended."""
        if params.engine not in self.workers:
            raise ConfigurationError(f"{params.engine} has no worker on this node", hint=self._known())
        for name, other in self.workers.items():
            if name != params.engine:
                await other.stop()
        worker = self.workers[params.engine]
        pid = await worker.start(restart=params.restart)
        forget_peak(pid)
        return StartWorkerResult(pid=pid, endpoint=worker.endpoint)

    async def start_engine(self, params: StartEngineParams, job: JobContext) -> StartEngineResult:
        """Load a model that is here on the engine; another engine is ended. What changed on disk is hashed first."""
        if params.engine not in self.engines:
            raise ConfigurationError(f"this node has no engine {params.engine}", hint=self._known())
        model, *tokenizers = await self._loaded.take(filter(None, (params.model_sha256, params.tokenizer_sha256)), job)
        for name, other in self.engines.items():
            if name != params.engine:
                await other.stop()
        self.engine = self.engines[params.engine]
        self.store.pin(_ENGINE_OWNER, [sha for sha in (params.model_sha256, params.tokenizer_sha256) if sha])
        forget_peak(self.engine.pid)
        return await self.engine.start(model, params, job.progress, tokenizer=next(iter(tokenizers), None))

    async def stop_engine(self, params: StopEngineParams, _job: JobContext) -> Empty:
        """End the engine and, if asked, the worker."""
        await self.engine.stop()
        self.store.pin(_ENGINE_OWNER, ())
        if params.worker:
            await asyncio.gather(*(worker.stop() for worker in self.workers.values()))
        return Empty()

    async def marker(self, params: MarkerParams, _job: JobContext) -> MarkerResult:
        """Step the marker load and say when it was on."""
        argv = [
            sys.executable, "-m", "node_agent.machine.marker", "--on", str(params.on_s), "--off", str(params.off_s),
            "--cycles", str(params.cycles),
        ]  # fmt: skip
        span_s = params.cycles * (params.on_s + params.off_s) + params.off_s
        output = self.settings.state_dir / "logs" / "marker.log"
        output.unlink(missing_ok=True)
        self._marker = process = Supervised.start("marker", argv, self.settings.state_dir)
        try:
            await asyncio.wait_for(process.exited.wait(), span_s + _MARKER_SLACK_S)
        except TimeoutError as error:
            raise InfrastructureError("the marker load did not end", where=str(process.pid)) from error
        finally:
            await self._stop_marker()
        return _marker_result(output, process)

    async def prefill(self, params: PrefillParams, job: JobContext) -> WorkloadResult:
        """Run the prefill workload."""
        return await self._quietly(self.engine.prefill(params, job.progress))

    async def decode(self, params: DecodeParams, job: JobContext) -> WorkloadResult:
        """Run the decode workload."""
        return await self._quietly(self.engine.decode(params, job.progress))

    async def score(self, params: ScoreParams, job: JobContext) -> ScoreResult:
        """Score continuations."""
        return await self._quietly(self.engine.score(params, job.progress))

    async def generate(self, params: GenerateParams, job: JobContext) -> GenerateResult:
        """Write texts."""
        return await self._quietly(self.engine.generate(params, job.progress))

    def engine_infos(self) -> list[EngineInfo]:
        """Return what each engine of this node can do."""
        return [
            EngineInfo(available=engine.available, build=engine.build, **engine.description.model_dump())
            for engine in self.engines.values()
        ]

    def _known(self) -> str:
        return f"it has {', '.join(sorted(self.engines))}; `epi node engines` tells more"

    async def set_governor(self, params: SetGovernorParams, _job: JobContext) -> SetGovernorResult:
        """Set the CPU frequency governor."""
        return set_governor(params, allowed=self.settings.allow_governor)

    async def wait_steady(self, params: SteadyGateParams, job: JobContext) -> SteadyGateResult:
        """Wait until the machine is steady."""
        return await wait_steady(params, sampler(), job.progress)

    async def blink(self, params: BlinkParams, _job: JobContext) -> BlinkResult:
        """Blink the status LED, unless a workload runs: a lit LED is power too."""
        if self._in_window:
            raise ConflictError("a workload is being measured on this node", hint="ask again when it has ended")
        return await blink(params)

    async def facts(self) -> NodeFacts:
        """Ask the machine, or, while a workload runs, answer with what was known before: silence first."""
        if not self._in_window or self._facts is None:
            self._facts = await read_facts(self.settings, await self._find_engine())
        return self._facts

    def _find_engine(self) -> asyncio.Task[EngineBuild | None]:
        """Return the look at the installed engine, which is taken once."""
        if self._finding_engine is None:
            self._finding_engine = asyncio.create_task(find_engine())
        return self._finding_engine

    def activity(self) -> AgentActivity:
        """Return what this agent did since its start."""
        worker_pid = next((worker.pid for worker in self.workers.values() if worker.pid is not None), None)
        return read_activity(engine_pid=self.engine.pid, worker_pid=worker_pid)

    def load(self, since_utc_ns: int | None) -> LoadReading:
        """Take a look at who uses this machine's processors; return what happened since an earlier look."""
        marker_pid = None if self._marker is None else self._marker.pid
        pids = (self.engine.pid, marker_pid, *(worker.pid for worker in self.workers.values()))
        return self._load_watch.look(since_utc_ns, pids)

    def connections(self) -> NodeConnections:
        """Return who is connected to this node's worker, and this end of its engine's connections."""
        running = next((worker for worker in self.workers.values() if worker.pid is not None), None)
        endpoint = self.settings.place.worker_endpoint if running is None else running.endpoint
        return read_connections((endpoint, None if running is None else running.pid), self.engine.pid)

    async def _quietly(self, work: Coroutine[Any, Any, Done]) -> Done:
        """Do a workload and add to its result what the agent itself did meanwhile."""
        before = self.activity()
        self._in_window = True
        try:
            result = await work
        finally:
            self._in_window = False
        self._loaded.check_unchanged()
        return result.model_copy(update={"agent": activity_between(before, self.activity())})


def _marker_result(output: Path, process: Supervised) -> MarkerResult:
    try:
        said = json.loads(read_text(output, SETTINGS_BYTES))
        return MarkerResult(
            start_utc_ns=said["start"], end_utc_ns=said["end"], on=tuple((begin, end) for begin, end in said["on"])
        )
    except (OSError, ValueError, KeyError) as error:
        raise InfrastructureError(f"the marker load {process.describe_end()}", where=str(process.pid)) from error
