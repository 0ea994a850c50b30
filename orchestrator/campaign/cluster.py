"""The cluster of one attempt: its jobs, its model files, its engine and workers.

Not here: windows (`attempt`), which nodes and engines a configuration has (`topology`).
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel

from orchestrator.campaign.calls import Call
from orchestrator.campaign.context import CampaignContext
from orchestrator.campaign.measured import AttemptPlace
from orchestrator.campaign.pins import SurgeonPins
from orchestrator.campaign.preparation import ModelFile, Variant
from orchestrator.campaign.strangers import StrangerError, Strangers, described, find_strangers, unless_held
from orchestrator.campaign.topology import scorer_of, workers_of
from orchestrator.domain.campaign.steps import RunStep, Step
from orchestrator.domain.run.records import ServedBy
from shared.kernel.errors import EpiError
from shared.kernel.records import EngineName, NodeName, Sha256
from shared.wire.artifact_checks import CheckParams, CheckResult
from shared.wire.artifacts import PinParams, PinResult
from shared.wire.node_jobs.artifacts import FetchParams, FetchResult
from shared.wire.node_jobs.engines import (
    Empty,
    EngineBuffers,
    StartEngineParams,
    StartEngineResult,
    StartWorkerParams,
    StartWorkerResult,
    StopEngineParams,
)
from shared.wire.surgeries import ApplyParams, ApplyResult

log = logging.getLogger(__name__)

R = TypeVar("R", bound=BaseModel)
_AGAIN = 10
"""Added to the part of a job that is asked for once more in the same attempt: a job's id is used once."""
_CLEARINGS = 3
"""How often the workers are started anew to be rid of a stranger who connects again."""
_STRANGERS = "strangers on workers"


class Cluster:
    """Does the jobs of attempts, and knows which root has a healthy engine from the attempt before."""

    def __init__(self, context: CampaignContext, pins: SurgeonPins) -> None:
        self._pins = pins
        self._hashed: set[tuple[NodeName, Sha256]] = set()
        self._lab = context.lab
        self._caller = context.caller
        self._spec = context.spec
        self._timeouts = context.spec.timeouts
        self._warm: tuple[str, EngineName] | None = None
        self._health = context.health
        self._roots = {context.lab.root_name}

    async def job(
        self, place: AttemptPlace, step: Step, kind: str, params: BaseModel, result: type[R], timeout_s: float, *,
        node: NodeName | None = None, delay_s: float = 0.0, part: int = 1,
    ) -> R:  # fmt: skip
        """Do a job on a node, by default the root; `part` numbers several of one kind in one step."""
        agent = node or place.root
        call = Call(agent, self._lab.nodes[agent], kind, params, timeout_s, delay_s, part)
        return await self._caller.once(place.run, place.number, step, call, result)

    async def deploy(self, place: AttemptPlace, variant: Variant) -> dict[NodeName, FetchResult]:
        """Bring the variant to the root in the cheapest way that works; return how its measured file came.

        Everything that the engine will read is what its name says then: it is hashed before it is first used in this
        campaign, each time the campaign is set running, and whenever its file changed.
        """
        files = [variant.scored] if variant.measured == variant.scored else [variant.scored, variant.measured]
        missing = await self._check(place, files)
        for part, file in enumerate(files, start=1):
            if file.base.sha256 in missing and file.base.sha256 != file.request.sha256:
                await self._fetch(place, "fetch_base", file.base, part)
            if file.tokenizer is not None and file.tokenizer.sha256 in missing:
                await self._fetch(place, "fetch_base", file.tokenizer, 2 * _AGAIN + part)
            delivery = await self._fetch(place, "deploy", file.request, part, file.remade_by)
        return {place.root: delivery}

    async def _check(self, place: AttemptPlace, files: Sequence[ModelFile]) -> frozenset[Sha256]:
        """Pin what the attempt needs on the root and let it be hashed where that is due; return what is not there."""
        requests = {request.sha256: request for file in files for request in file.requests}
        pins = PinParams(owner=self._spec.id, sha256s=tuple(requests))
        await self.job(place, "deploy", "pin", pins, PinResult, self._timeouts.handling("deploy"))
        due = tuple(sha256 for sha256 in requests if (place.root, sha256) not in self._hashed)
        timeout_s = self._timeouts.rewrite("deploy", sum(request.size_bytes for request in requests.values()))
        checks = CheckParams(sha256s=tuple(requests), anew=due)
        found = await self.job(place, "deploy", "check_artifacts", checks, CheckResult, timeout_s)
        await self._caller.found_damaged(place.run, place.number, place.root, found.damaged)
        self._hashed.update((place.root, sha256) for sha256 in due)  # what comes from now on is hashed as it comes
        return frozenset(found.missing)

    async def _fetch(
        self, place: AttemptPlace, step: Step, request: FetchParams, part: int, remade_by: ApplyParams | None = None
    ) -> FetchResult:
        """Bring a file; where that fails for want of what the surgeon lost, the surgeon makes it again."""
        try:
            return await self._fetch_once(place, step, request, part)
        except EpiError:
            restored = await self._pins.restore([sha for sha in (request.base_sha256, request.sha256) if sha])
            if (remade_by is None or not await self._cut_again(place, request, part, remade_by)) and not restored:
                raise
        return await self._fetch_once(place, step, request, _AGAIN + part)

    async def _cut_again(self, place: AttemptPlace, request: FetchParams, part: int, remade_by: ApplyParams) -> bool:
        """Let the surgeon cut a variant again that it has no more, or a damaged one; tell whether it was so."""
        timeout_s = self._timeouts.rewrite("apply", request.size_bytes * max(len(remade_by.surgeries), 1))
        params = CheckParams(sha256s=(request.sha256,), anew=(request.sha256,))
        call = Call("surgeon", self._lab.surgeon, "check_artifacts", params, timeout_s, part=part)
        found = await self._caller.once(place.run, place.number, "apply", call, CheckResult)
        await self._caller.found_damaged(place.run, place.number, "surgeon", found.damaged)
        if not found.missing:
            return False
        call = Call("surgeon", self._lab.surgeon, "apply", remade_by, timeout_s, part=part)
        await self._caller.once(place.run, place.number, "apply", call, ApplyResult)
        return True

    async def _fetch_once(self, place: AttemptPlace, step: Step, request: FetchParams, part: int) -> FetchResult:
        timeout_s = self._timeouts.fetch(step, request.size_bytes)
        delivery = await self.job(place, step, "fetch", request, FetchResult, timeout_s, part=part)
        await self._caller.came_of(place.run, place.number, step, place.root, delivery)
        return delivery

    async def start_workers(self, place: AttemptPlace) -> tuple[str, ...]:
        """Make sure that all workers of the attempt's engine live and serve nobody else, and return their endpoints.

        An engine process that has just served a whole attempt on the same root loads the next model itself, which saves
        its start; any other is ended first, and all workers with it: whoever else had got hold of one is out.

        Raises:
            InfrastructureError: somebody keeps connecting to a worker; he is named.
        """
        engine = place.configuration.engine
        warm, self._warm = self._warm, None  # whatever goes wrong leaves the engine in doubt
        return await self._own_workers(place, "start_engine", engine, fresh=warm != (place.root, engine))

    async def serve_scoring(self, place: AttemptPlace, step: RunStep, file: ModelFile) -> ServedBy:
        """Let the scoring engine take over from one whose answers cannot be judged."""
        engine = scorer_of(place.configuration.engine)
        workers = await self._own_workers(place, step, engine, fresh=True)
        return await self.start_engine(place, step, engine, file, workers)

    def was_healthy(self, place: AttemptPlace) -> None:
        """Say that the attempt went through to its end."""
        self._warm = place.root, scorer_of(place.configuration.engine)

    async def _own_workers(
        self, place: AttemptPlace, step: RunStep, engine: EngineName, *, fresh: bool
    ) -> tuple[str, ...]:
        """Start all workers, or keep them unless `fresh`; a stranger on one makes all of them fresh."""
        strangers: Strangers = {}
        for part in range(1, 1 + _AGAIN * _CLEARINGS, _AGAIN):
            if fresh:
                await self._end_engines(place, step, part)
            endpoints = await self._start_workers(place, step, engine, part, restart=fresh)
            strangers = await find_strangers(self._lab, place.root, workers_of(engine, place.nodes))
            self._report(strangers)
            if not strangers:
                return endpoints
            log.warning("%s; the workers are started anew", described(strangers))
            fresh = True
        raise StrangerError(strangers)

    def _report(self, strangers: Strangers) -> None:
        """Let the health say who holds a worker, for as long as he was seen at the last look."""
        if strangers:
            self._health.set(_STRANGERS, f"at the last look {described(strangers)}, not to the engine")
        else:
            self._health.clear(_STRANGERS)

    async def _end_engines(self, place: AttemptPlace, step: RunStep, part: int) -> None:
        """End every engine that may run, which frees the workers of it, and the root's own worker."""
        self._roots.add(place.root)
        for name in sorted(self._roots):
            params = StopEngineParams(worker=name == place.root)
            handling_s = self._timeouts.handling(step)
            await self.job(place, step, "stop_engine", params, Empty, handling_s, node=name, part=part)

    async def _start_workers(
        self, place: AttemptPlace, step: RunStep, engine: EngineName, part: int, *, restart: bool
    ) -> tuple[str, ...]:
        handling_s, params = self._timeouts.handling(step), StartWorkerParams(engine=engine, restart=restart)
        workers = await asyncio.gather(
            *(
                self.job(place, step, "start_worker", params, StartWorkerResult, handling_s, node=name, part=part)
                for name in workers_of(engine, place.nodes)
            )
        )
        return tuple(worker.endpoint for worker in workers)

    async def start_engine(
        self, place: AttemptPlace, step: RunStep, engine: EngineName, file: ModelFile, workers: tuple[str, ...]
    ) -> ServedBy:
        """Load a model over the workers.

        Raises:
            InfrastructureError: a worker serves somebody else; he is named.
            EpiError: what the root's agent says.
        """
        loading = self.job(place, step, "start_engine", StartEngineParams(
            model_sha256=file.request.sha256, workers=workers, context_tokens=self._spec.engine.context_tokens,
            sequences=self._spec.engine.sequences, threads=self._spec.engine.threads,
            experts_per_token=place.configuration.experts_per_token, engine=engine,
            tokenizer_sha256=None if file.tokenizer is None else file.tokenizer.sha256,
        ), StartEngineResult, self._timeouts.transfer(step, file.request.size_bytes))  # fmt: skip
        names = workers_of(engine, place.nodes)
        try:
            started = await unless_held(self._lab, place.root, names, loading)
        except StrangerError as error:
            self._report(error.strangers)
            raise
        return ServedBy(
            engine=engine, engine_build=started.build, model_sha256=file.request.sha256, nodes=place.nodes,
            buffers=buffers_by_node(started.buffers, dict(zip(workers, names, strict=True)), place.root),
        )  # fmt: skip


def buffers_by_node(
    reported: Iterable[EngineBuffers], node_of: Mapping[str, NodeName], root: NodeName
) -> dict[NodeName, EngineBuffers]:
    """Return what an engine reports by node; its own process counts at the root, beside the root's worker."""
    found: dict[NodeName, EngineBuffers] = {}
    for one in reported:
        node = root if one.worker is None else node_of.get(one.worker)
        if node is not None:
            found[node] = found.get(node, EngineBuffers()) + one
    return found
