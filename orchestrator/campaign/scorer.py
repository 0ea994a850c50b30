"""One scorer: brings a model to it, loads it, and lets it answer what is not known yet.

Its jobs belong to no attempt and are not journaled: the file of kept answers says what is done. Not here: which
configuration is whose (`scorers`).
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Literal, TypeVar

from pydantic import BaseModel

from orchestrator.benchmarks.answer_sets import AnswerSet
from orchestrator.campaign.answers import AnswerMaker
from orchestrator.campaign.asking import R
from orchestrator.campaign.context import CampaignContext
from orchestrator.campaign.preparation import ModelFile, Variant
from orchestrator.campaign.topology import scorer_of
from orchestrator.domain.campaign.job_keys import AnswerJob
from orchestrator.domain.run.records import ServedBy
from shared.kernel.clock import utc_ns
from shared.kernel.errors import DataError
from shared.kernel.records import Configuration, ConfigurationId, NodeName
from shared.wire.artifact_checks import CheckParams, CheckResult
from shared.wire.artifacts import PinParams, PinResult
from shared.wire.node_jobs.artifacts import FetchResult
from shared.wire.node_jobs.engines import StartEngineParams, StartEngineResult
from shared.wire.node_jobs.workloads import GenerateParams, ScoreParams

Quiet = Callable[[], AbstractAsyncContextManager[None]]
"""Entered around each job: where the scorer shares a node's machine, it waits until no window is open."""
M = TypeVar("M", bound=BaseModel)


class Scorer:
    """A node agent that answers questions on its own, without workers."""

    def __init__(self, context: CampaignContext, name: NodeName) -> None:
        self._context = context
        self._client = context.lab.scorers[name]
        self._address = next(one for one in context.lab.settings.scorers if one.name == name)
        self.name = name

    async def answers(
        self, maker: AnswerMaker, configuration: Configuration, variant: Variant, quiet: Quiet
    ) -> AnswerSet:
        """Return the answers to all questions of a configuration.

        Raises:
            InfrastructureError: the scorer is away; what it answered is kept.
            EpiError: the model or the questions do not fit.
        """
        facts = await self._context.lab.facts(self.name)
        key = maker.key(
            configuration, variant.scored.request.sha256, [facts], threads=self._address.threads,
            gpu_layers=self._address.gpu_layers,
        )  # fmt: skip
        if (known := await maker.known(key)) is not None:
            return known
        await self._stop_leftovers()
        async with quiet():
            served = await self._load(configuration, variant.scored)

        async def ask(kind: Literal["score", "generate"], params: ScoreParams | GenerateParams, result: type[R],
                      timeout_s: float, *, first: bool) -> R:  # fmt: skip
            async with quiet():
                return await self._job(configuration.id, kind, params, result, timeout_s)

        return await maker.make(key, served, ask)

    async def _load(self, configuration: Configuration, file: ModelFile) -> ServedBy:
        """Bring the model here in the cheapest way, and load it; what is here already is hashed before."""
        timeouts, started = self._context.spec.timeouts, self._context.spec.engine
        needed = tuple(request.sha256 for request in file.requests)
        params = PinParams(owner=self._context.spec.id, sha256s=needed)
        await self._job(configuration.id, "pin", params, PinResult, timeouts.handling("deploy"))
        check_s = timeouts.rewrite("deploy", sum(request.size_bytes for request in file.requests))
        check = CheckParams(sha256s=needed, anew=needed)
        found = await self._job(configuration.id, "check_artifacts", check, CheckResult, check_s)
        await self._context.caller.found_damaged(configuration.id, 0, self.name, found.damaged)
        for request in file.requests:
            if request.sha256 in found.missing:
                timeout_s = timeouts.fetch("deploy", request.size_bytes)
                await self._job(configuration.id, "fetch", request, FetchResult, timeout_s)
        engine = scorer_of(configuration.engine)
        start = StartEngineParams(
            model_sha256=file.request.sha256, context_tokens=started.context_tokens, sequences=started.sequences,
            threads=self._address.threads or started.threads, gpu_layers=self._address.gpu_layers,
            experts_per_token=configuration.experts_per_token, engine=engine,
        )  # fmt: skip
        load_s = timeouts.transfer("start_engine", file.request.size_bytes)
        loaded = await self._job(configuration.id, "start_engine", start, StartEngineResult, load_s)
        return ServedBy(
            engine=engine, engine_build=loaded.build, model_sha256=file.request.sha256, nodes=(self.name,),
            gpu_layers=self._address.gpu_layers,
        )  # fmt: skip

    async def _job(
        self, configuration: ConfigurationId, kind: str, params: BaseModel, result: type[M], timeout_s: float
    ) -> M:
        job = AnswerJob(
            campaign=self._context.spec.id, configuration=configuration, agent=self.name, kind=kind, utc_ns=utc_ns()
        )  # fmt: skip
        return await self._client.run_as(result, job.format(), kind, params, timeout_s=timeout_s)

    async def _stop_leftovers(self) -> None:
        """Cancel what an orchestrator that died had asked for: nobody waits for it any more."""
        for job in await self._client.unfinished_jobs():
            try:
                AnswerJob.parse(job.id)
            except DataError:
                continue
            await self._client.cancel(job.id)
