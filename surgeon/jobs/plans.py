"""Handlers from statistics to plans: observe, merge, rank, search, skipping, plan."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shared.files.artifacts import scratch_file
from shared.files.durability import hash_file
from shared.kernel.errors import ConfigurationError
from shared.kernel.progress import part
from shared.wire.job_server import JobContext, JobKind
from shared.wire.surgeon_jobs import (
    MergeParams,
    ObserveParams,
    ObserveResult,
    PlanParams,
    PlanResult,
    RankParams,
    RankResult,
    SearchParams,
    SearchResult,
    SkippingParams,
    SkippingResult,
)
from surgeon.jobs.tools import Tools
from surgeon.observation import statistics
from surgeon.planning import plan_making
from surgeon.rankings.registry import ranking_named
from surgeon.search.registry import search_named
from surgeon.work.cache import key_of
from surgeon.work.child import run_in_child
from surgeon.work.tasks import ObserveTask, SearchTask, SkippingTask


class PlanJobs:
    """Handlers that never change a model."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._settings, self._store = tools.settings, tools.store

    def kinds(self) -> list[JobKind]:  # type: ignore[type-arg]
        """Return the job kinds."""
        return [
            JobKind("observe", ObserveParams, self.observe),
            JobKind("merge", MergeParams, self.merge, concurrent=True),
            JobKind("rank", RankParams, self.rank, concurrent=True),
            JobKind("search", SearchParams, self.search),
            JobKind("skipping", SkippingParams, self.skipping),
            JobKind("plan", PlanParams, self.plan, concurrent=True),
        ]

    async def observe(self, params: ObserveParams, context: JobContext) -> ObserveResult:
        """Collect expert statistics; an interrupted run goes on where it was."""
        i, n = params.shard
        if not 0 <= i < n:
            raise ConfigurationError(f"shard {i} of {n} does not exist", hint="the first runs from 0 to N-1")
        texts = self._settings.corpus_paths(params.corpus)
        hashes = [[path.stem, await asyncio.to_thread(hash_file, path)] for path in texts]
        key = key_of(kind="observe", model=params.model_sha256, texts=hashes, window=self._settings.window_tokens,
                     columns=params.columns, reservoir=params.reservoir, shard=params.shard,
                     max_tokens=params.max_tokens)  # fmt: skip
        known = await self._tools.known(ObserveResult, key, "statistics_sha256")
        if known is not None:
            return known
        async with self._tools.reading(params.model_sha256) as (model,), scratch_file(self._store) as target:
            task = ObserveTask(
                model=model, texts=texts, target=target, resume=self._settings.state_dir / f"observe-{key}.safetensors",
                window_tokens=self._settings.window_tokens, threads=self._settings.threads, shard=params.shard,
                columns=params.columns, reservoir=params.reservoir, max_tokens=params.max_tokens,
            )  # fmt: skip
            done = await run_in_child(task, part(context.progress, 0.0, 1.0, "observe"))
            info = await self._tools.adopt(target)
        result = ObserveResult(statistics_sha256=info.sha256, n_tokens=done.n_tokens)
        self._tools.cache.put(key, result)
        return result

    async def merge(self, params: MergeParams, context: JobContext) -> ObserveResult:
        """Add statistics files."""
        async with self._tools.reading(*params.statistics_sha256s) as paths, scratch_file(self._store) as target:
            total = await asyncio.to_thread(lambda: statistics.merge(map(statistics.load, paths)))
            await asyncio.to_thread(statistics.save, total, target)
            info = await self._tools.adopt(target)
        return ObserveResult(statistics_sha256=info.sha256, n_tokens=total.n_tokens)

    async def rank(self, params: RankParams, context: JobContext) -> RankResult:
        """Ask one method."""

        def rank(model: Path, found: Path | None) -> RankResult:
            ranking = ranking_named(params.method, params.parameters, seed=params.seed)
            inputs = plan_making.ranking_inputs(found, model, params.domain_weights)
            rows = plan_making.saliency_of(ranking, inputs).tolist()
            return RankResult(method=params.method, saliency=tuple(tuple(row) for row in rows))

        async with self._inputs(params.model_sha256, params.statistics_sha256) as (model, found):
            return await asyncio.to_thread(rank, model, found)

    async def plan(self, params: PlanParams, context: JobContext) -> PlanResult:
        """Rank and choose."""

        def make(model: Path, found: Path | None) -> PlanResult:
            inputs = plan_making.ranking_inputs(found, model, params.domain_weights)
            plan = plan_making.make_plan(
                params, inputs, base_sha256=params.model_sha256, statistics_sha256=params.statistics_sha256
            )
            return PlanResult(plan=plan, plan_hash=plan.plan_hash())

        async with self._inputs(params.model_sha256, params.statistics_sha256) as (model, found):
            return await asyncio.to_thread(make, model, found)

    @asynccontextmanager
    async def _inputs(
        self, model_sha256: str, statistics_sha256: str | None
    ) -> AsyncIterator[tuple[Path, Path | None]]:
        """Give the paths of a model and of statistics, where some are asked for."""
        async with self._tools.reading(model_sha256, *filter(None, [statistics_sha256])) as (model, *found):
            yield model, found[0] if found else None

    async def search(self, params: SearchParams, context: JobContext) -> SearchResult:
        """Search; what was tried is kept, so that an interrupted search goes on."""
        search = search_named(params.method, params.parameters)
        files = tuple(self._settings.question_file(name) for name in params.questions)
        hashes = [[await asyncio.to_thread(hash_file, path), template] for path, template in files]
        decisive = {name: value for name, value in search.model_dump().items() if name not in search.free}
        key = key_of(**decisive | {
            "kind": params.method, "model": params.model_sha256, "depth": params.depth, "files": hashes,
            "plan": params.plan and params.plan.plan_hash(),
        })  # fmt: skip
        async with self._inputs(params.model_sha256, params.statistics_sha256) as (model, found):
            task = SearchTask(
                search=params.method, parameters=params.parameters, model=model, depth=params.depth, plan=params.plan,
                start=params.start, statistics=found, questions=files, threads=self._settings.threads,
                cache=self._settings.state_dir / f"{params.method}-{key}.jsonl",
            )  # fmt: skip
            done = await run_in_child(task, part(context.progress, 0.0, 1.0, params.method))
        assert done.plan is not None
        return SearchResult(plan=done.plan, plan_hash=done.plan.plan_hash(), report=done.report)

    async def skipping(self, params: SkippingParams, context: JobContext) -> SkippingResult:
        """Evaluate dynamic skipping."""
        async with self._tools.reading(params.model_sha256, params.statistics_sha256) as (model, found):
            task = SkippingTask(
                model=model, statistics=found, threads=self._settings.threads,
                questions=tuple(self._settings.question_file(name) for name in params.questions),
            )  # fmt: skip
            done = await run_in_child(task, part(context.progress, 0.0, 1.0, "skipping"))
        assert done.skipping is not None
        return done.skipping
