"""The surgeon's job kinds (`shared.surgeon_jobs`) as handlers: named inputs to artifacts, cached by input hash."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared import surgery
from shared.artifacts import ArtifactInfo, ArtifactStore, scratch_file
from shared.durable import hash_file
from shared.errors import ConfigurationError, InfrastructureError
from shared.jobs import JobContext, JobKind
from shared.surgeon_jobs import (
    ApplyParams,
    ApplyResult,
    ObserveParams,
    ObserveResult,
    PlanParams,
    PlanResult,
    PrepareParams,
    PrepareResult,
    RankParams,
    RankResult,
    SearchParams,
    SearchResult,
    ValidateParams,
    ValidateResult,
    VerifyParams,
    VerifyResult,
)
from surgeon import planning, statistics
from surgeon import verify as verification
from surgeon.cache import ResultCache, key_of
from surgeon.child import run_in_child
from surgeon.rankings import METHODS
from surgeon.rankings.base import RankingInputs
from surgeon.sanity import Evaluation
from surgeon.settings import SurgeonSettings
from surgeon.tasks import ConvertTask, EepTask, EvaluateTask, NaeeTask, ObserveTask, QuantizeTask
from surgeon.validate import verdict


class SurgeonJobs:
    """Handlers over one artifact store and one cache."""

    def __init__(self, settings: SurgeonSettings, store: ArtifactStore, cache: ResultCache) -> None:
        self._settings = settings
        self._store = store
        self._cache = cache

    def kinds(self) -> list[JobKind]:  # type: ignore[type-arg]
        """Return the job kinds; light ones run beside a heavy one."""
        return [
            JobKind("prepare", PrepareParams, self.prepare),
            JobKind("observe", ObserveParams, self.observe),
            JobKind("rank", RankParams, self.rank, concurrent=True),
            JobKind("search", SearchParams, self.search),
            JobKind("plan", PlanParams, self.plan, concurrent=True),
            JobKind("apply", ApplyParams, self.apply),
            JobKind("verify", VerifyParams, self.verify),
            JobKind("validate", ValidateParams, self.validate),
        ]

    async def prepare(self, params: PrepareParams, context: JobContext) -> PrepareResult:
        """Convert to F16 and quantise."""
        source = self._settings.model_path(params.model)
        context.progress(0.0, "hashing the checkpoint")
        key = key_of(
            kind="prepare", quantization=params.quantization,
            checkpoint=await asyncio.to_thread(self._cache.hash_of_folder, source),
        )  # fmt: skip
        known = self._cache.get(PrepareResult, key)
        if known is not None and self._store.has(known.base_sha256) and self._store.has(known.f16_sha256):
            return known
        async with scratch_file(self._store) as f16, scratch_file(self._store) as base:
            await run_in_child(ConvertTask(source=source, target=f16), _part(context, 0.0, 0.5, "convert"))
            task = QuantizeTask(
                source=f16, target=base, quantization=params.quantization, threads=self._settings.threads
            )
            await run_in_child(task, _part(context, 0.5, 0.95, "quantise"))
            info = await asyncio.to_thread(surgery.describe, base)
            f16_info = await self._adopt(f16)
            base_info = await self._adopt(base)
        result = PrepareResult(
            f16_sha256=f16_info.sha256, base_sha256=base_info.sha256, base_size_bytes=base_info.size_bytes,
            architecture=info.architecture, n_layers=info.n_layers, n_experts=info.n_experts,
            experts_per_token=info.experts_per_token,
        )  # fmt: skip
        self._cache.put(key, result)
        return result

    async def observe(self, params: ObserveParams, context: JobContext) -> ObserveResult:
        """Collect expert statistics; an interrupted run goes on where it was."""
        texts = self._settings.corpus_paths(params.corpus)
        model = self._store.path(params.model_sha256)
        hashes = [[path.stem, await asyncio.to_thread(hash_file, path)] for path in texts]
        key = key_of(kind="observe", model=params.model_sha256, texts=hashes, window=self._settings.window_tokens,
                     columns=params.columns, reservoir=params.reservoir)  # fmt: skip
        known = self._cache.get(ObserveResult, key)
        if known is not None and self._store.has(known.statistics_sha256):
            return known
        async with scratch_file(self._store) as target:
            task = ObserveTask(
                model=model, texts=texts, target=target, resume=self._settings.state_dir / f"observe-{key}.safetensors",
                window_tokens=self._settings.window_tokens, threads=self._settings.threads,
                columns=params.columns, reservoir=params.reservoir,
            )  # fmt: skip
            done = await run_in_child(task, _part(context, 0.0, 1.0, "observe"))
            info = await self._adopt(target)
        result = ObserveResult(statistics_sha256=info.sha256, n_tokens=done.n_tokens)
        self._cache.put(key, result)
        return result

    async def rank(self, params: RankParams, context: JobContext) -> RankResult:
        """Ask one method."""
        saliency = await asyncio.to_thread(
            self._saliency, params.model_sha256, params.statistics_sha256, params.method, params.domain_weights,
            params.seed,
        )  # fmt: skip
        return RankResult(method=params.method, saliency=tuple(tuple(row) for row in saliency.tolist()))

    async def search(self, params: SearchParams, context: JobContext) -> SearchResult:
        """Search; what EEP has evaluated is kept, so that an interrupted search goes on."""
        model = self._store.path(params.model_sha256)
        task: NaeeTask | EepTask
        if params.method == "naee":
            if params.statistics_sha256 is None:
                raise ConfigurationError("NAEE needs statistics", hint="observe with a reservoir first")
            task = NaeeTask(model=model, statistics=self._store.path(params.statistics_sha256), depth=params.depth,
                            max_subsets=params.max_subsets)  # fmt: skip
        else:
            files = tuple(self._settings.question_file(name) for name in params.questions)
            hashes = [[await asyncio.to_thread(hash_file, path), template] for path, template in files]
            key = key_of(kind="eep", model=params.model_sha256, depth=params.depth, files=hashes)
            task = EepTask(
                model=model, questions=files, depth=params.depth, iterations=params.iterations,
                offspring=params.offspring, seed=params.seed, threads=self._settings.threads,
                cache=self._settings.state_dir / f"eep-{key}.jsonl",
            )  # fmt: skip
        done = await run_in_child(task, _part(context, 0.0, 1.0, params.method))
        assert done.plan is not None
        return SearchResult(
            plan=done.plan, plan_hash=done.plan.plan_hash(), losses=done.naee.losses if done.naee else (),
            exhaustive=done.naee.exhaustive if done.naee else None,
            train_accuracy=done.eep.train if done.eep else None,
            validation_accuracy=done.eep.validation if done.eep else None,
            validation_accuracy_of_base=done.eep.validation_base if done.eep else None,
        )  # fmt: skip

    async def verify(self, params: VerifyParams, context: JobContext) -> VerifyResult:
        """Compare byte ranges."""
        report = await asyncio.to_thread(
            verification.verify, self._store.path(params.base_sha256), params.plan, self._store.path(params.sha256)
        )
        return VerifyResult(
            n_tensors=report.n_tensors, n_ranges=report.n_ranges, n_bytes=report.n_bytes, plan_hash=report.plan_sha256,
            identical=report.identical,
        )  # fmt: skip

    async def plan(self, params: PlanParams, context: JobContext) -> PlanResult:
        """Rank and choose."""
        return await asyncio.to_thread(self._plan, params)

    def _saliency(
        self, model_sha256: str, statistics_sha256: str | None, name: str, weights: dict[str, float] | None, seed: int
    ) -> npt.NDArray[np.float64]:
        method = METHODS.get(name)
        if method is None:
            raise ConfigurationError(f"unknown method {name!r}", hint=f"known: {', '.join(METHODS)}")
        model = self._store.path(model_sha256)
        info = surgery.describe(model)
        found = None
        if statistics_sha256 is not None:
            found = statistics.load(self._store.path(statistics_sha256))
            shape = (found.provenance.n_layers, found.provenance.n_experts)
            if shape != (info.n_layers, info.n_experts):
                raise ConfigurationError(
                    f"the statistics are of {shape[0]} layers of {shape[1]} experts,"
                    f" the model has {info.n_layers} of {info.n_experts}",
                    where=statistics_sha256,
                )
        return method.saliency(RankingInputs(info.n_layers, info.n_experts, found, weights, model, seed))

    def _plan(self, params: PlanParams) -> PlanResult:
        info = surgery.describe(self._store.path(params.model_sha256))
        saliency = self._saliency(params.model_sha256, params.statistics_sha256, params.method, None, 0)
        layers = planning.layers_of(params.group, info.n_layers)
        plan = planning.make_plan(
            saliency, planning.uniform_budget(info.n_layers, info.n_experts, layers, params.depth),
            method=params.method, layout=params.layout, experts_per_token=params.experts_per_token,
            parameters={"depth": params.depth, "group": params.group}, base_sha256=params.model_sha256,
            statistics_sha256=params.statistics_sha256,
        )  # fmt: skip
        fewest = min(len(ids) for ids in plan.kept)
        if fewest < (params.experts_per_token or info.experts_per_token):
            raise ConfigurationError(
                f"{fewest} experts would be left, but {info.experts_per_token} are active per token",
                hint="drop fewer, or lower experts_per_token",
            )
        return PlanResult(plan=plan, plan_hash=plan.plan_hash())

    async def apply(self, params: ApplyParams, context: JobContext) -> ApplyResult:
        """Write the variant as an artifact."""
        base = self._store.path(params.base_sha256)
        started = time.monotonic()
        key = key_of(kind="apply", base=params.base_sha256, plan=params.plan.plan_hash())
        known = self._cache.get(ApplyResult, key)
        if known is not None and self._store.has(known.sha256):
            return known

        stopped = threading.Event()

        def report(written: int, total: int) -> None:
            if stopped.is_set():
                raise InfrastructureError("the job was cancelled", where=context.job_id)
            context.progress(0.9 * written / max(total, 1), f"{written} of {total} bytes")

        async with scratch_file(self._store) as target:
            try:
                await asyncio.to_thread(surgery.apply_plan, base, params.plan, target, on_progress=report)
            except asyncio.CancelledError:
                stopped.set()  # a thread cannot be cancelled: it stops at its next report and removes what it wrote
                raise
            info = await self._adopt(target)
        result = ApplyResult(
            sha256=info.sha256, size_bytes=info.size_bytes, seconds=round(time.monotonic() - started, 6)
        )
        self._cache.put(key, result)
        return result

    async def validate(self, params: ValidateParams, context: JobContext) -> ValidateResult:
        """Sanity prompts and perplexity, against the baseline."""
        baseline = None
        if params.baseline_sha256 is not None:
            baseline = await self._evaluation(params.baseline_sha256, _part(context, 0.0, 0.5, "baseline"))
        variant = await self._evaluation(params.sha256, _part(context, 0.5, 1.0, "variant"))
        return verdict(variant, baseline, max_perplexity_ratio=params.max_perplexity_ratio)

    async def _evaluation(self, sha256: str, on_progress: Callable[[float, str], None]) -> Evaluation:
        files = [self._settings.heldout_text, self._settings.sanity_prompts]
        hashes = [None if path is None else await asyncio.to_thread(hash_file, path) for path in files]
        key = key_of(kind="evaluate", model=sha256, files=hashes, tokens=self._settings.heldout_tokens)
        known = self._cache.get(Evaluation, key)
        if known is not None:
            return known
        task = EvaluateTask(
            model=self._store.path(sha256), heldout=self._settings.heldout_text,
            prompts=self._settings.sanity_prompts, threads=self._settings.threads,
            max_tokens=self._settings.heldout_tokens,
        )  # fmt: skip
        done = await run_in_child(task, on_progress)
        assert done.evaluation is not None
        self._cache.put(key, done.evaluation)
        return done.evaluation

    async def _adopt(self, path: Path) -> ArtifactInfo:
        return await asyncio.to_thread(self._store.adopt, path)


def _part(context: JobContext, begin: float, end: float, what: str) -> Callable[[float, str], None]:
    return lambda fraction, message: context.progress(begin + (end - begin) * fraction, f"{what}: {message}")
