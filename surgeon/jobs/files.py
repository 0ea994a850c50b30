"""Handlers on files: prepare, convert, quantize, apply, verify, validate; cached by input hash."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shared.files.artifacts import scratch_file
from shared.files.durability import hash_file
from shared.kernel.errors import ConfigurationError
from shared.kernel.progress import Progress, part
from shared.wire.job_server import JobContext, JobKind
from shared.wire.surgeon_jobs import (
    ConvertParams,
    FileResult,
    PrepareParams,
    PrepareResult,
    QuantizeParams,
    ValidateParams,
    ValidateResult,
)
from shared.wire.surgeries import ApplyParams, ApplyResult, VerifyParams, VerifyResult
from surgeon.conversion.bases import describe_base, ready_made
from surgeon.jobs.tools import Tools
from surgeon.kinds.plan import Plan
from surgeon.quality.gate import verdict
from surgeon.quality.sanity import Evaluation
from surgeon.work.cache import key_of
from surgeon.work.child import run_in_child
from surgeon.work.tasks import ConvertDllamaTask, ConvertTask, EvaluateTask, QuantizeTask, SurgeriesTask

_OUTTYPES: Final = {"gguf": ("F16", "F32", "BF16"), "dllama": ("Q40", "Q80", "F16", "F32"), "dllama_tokenizer": ("",)}
"""Number formats by file format; the first is the usual one."""
_SHARE_OF_16_BIT: Final = {"F32": 2.0, "F16": 1.0, "BF16": 1.0, "Q80": 0.55, "Q40": 0.3, "": 0.0}
"""About how large a converted file is, against the checkpoint's size: how much room is made before the work."""


class FileJobs:
    """Handlers that make or judge checkpoints."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._settings, self._store = tools.settings, tools.store

    def kinds(self) -> list[JobKind]:  # type: ignore[type-arg]
        """Return the job kinds."""
        return [
            JobKind("prepare", PrepareParams, self.prepare),
            JobKind("convert", ConvertParams, self.convert),
            JobKind("quantize", QuantizeParams, self.quantize),
            JobKind("apply", ApplyParams, self.apply),
            JobKind("verify", VerifyParams, self.verify),
            JobKind("validate", ValidateParams, self.validate),
        ]

    async def prepare(self, params: PrepareParams, context: JobContext) -> PrepareResult:
        """Convert to F16 and quantise."""
        source = self._settings.model_path(params.model)
        if source.is_dir():
            f16 = await self._convert(ConvertParams(model=params.model), part(context.progress, 0.0, 0.5, "convert"))
        else:
            context.progress(0.0, "copying the GGUF file")
            f16 = await self._copied(source)
        async with self._tools.reading(f16.sha256) as (source,):
            if await asyncio.to_thread(ready_made, source, params.quantization):
                base = f16
            else:
                quantize = QuantizeParams(model_sha256=f16.sha256, quantization=params.quantization)
                base = await self._quantize(quantize, part(context.progress, 0.5, 1.0, "quantise"))
            async with self._tools.reading(base.sha256) as (file,):
                info, kv_heads, no_surgery = await asyncio.to_thread(describe_base, file)
        return PrepareResult(
            f16_sha256=f16.sha256, base_sha256=base.sha256, base_size_bytes=base.size_bytes,
            architecture=info.architecture, n_layers=info.n_layers, n_experts=info.n_experts,
            experts_per_token=info.experts_per_token, n_kv_heads=kv_heads, no_surgery=no_surgery,
        )  # fmt: skip

    async def _copied(self, source: Path) -> FileResult:
        """Take a configured GGUF file into the store as it is."""
        sha256 = await asyncio.to_thread(self._tools.cache.hash_of, source)
        key = key_of(kind="copy", checkpoint=sha256)
        known = await self._tools.known(FileResult, key, "sha256")
        if known is not None:
            return known
        await asyncio.to_thread(self._store.make_room, source.stat().st_size)
        async with scratch_file(self._store) as target:
            await asyncio.to_thread(shutil.copyfile, source, target)
            info = await self._tools.adopt(target, expected_sha256=sha256)
        result = FileResult(sha256=info.sha256, size_bytes=info.size_bytes)
        self._tools.cache.put(key, result)
        return result

    async def convert(self, params: ConvertParams, context: JobContext) -> FileResult:
        """Convert a configured checkpoint."""
        return await self._convert(params, part(context.progress, 0.0, 1.0, "convert"))

    async def _convert(self, params: ConvertParams, on_progress: Progress) -> FileResult:
        outtype = params.outtype or _OUTTYPES[params.format][0]
        if outtype not in _OUTTYPES[params.format]:
            raise ConfigurationError(f"{params.format} has no number format {outtype}")
        source = self._settings.model_path(params.model)
        on_progress(0.0, "hashing the checkpoint")
        checkpoint = await asyncio.to_thread(self._tools.cache.hash_of_folder, source)
        key = key_of(kind="convert", checkpoint=checkpoint, format=params.format, outtype=outtype)
        known = await self._tools.known(FileResult, key, "sha256")
        if known is not None:
            return known
        on_progress(0.0, "making sure that the checkpoint is what it was")
        await asyncio.to_thread(self._tools.cache.check_folder, source)

        def task(target: Path) -> ConvertTask | ConvertDllamaTask:
            if params.format == "gguf":
                return ConvertTask.model_validate({"source": source, "target": target, "outtype": outtype})
            tokenizer = params.format == "dllama_tokenizer"
            return ConvertDllamaTask(source=source, target=target, weights=outtype, tokenizer=tokenizer)

        size_bytes = sum(entry.stat().st_size for entry in source.iterdir() if entry.is_file())
        return await self._made(key, task, on_progress, about_bytes=int(size_bytes * _SHARE_OF_16_BIT[outtype]))

    async def quantize(self, params: QuantizeParams, context: JobContext) -> FileResult:
        """Quantise an artifact."""
        return await self._quantize(params, part(context.progress, 0.0, 1.0, "quantise"))

    async def _quantize(self, params: QuantizeParams, on_progress: Progress) -> FileResult:
        key = key_of(kind="quantize", model=params.model_sha256, quantization=params.quantization,
                     statistics=params.statistics_sha256, plan=params.plan and params.plan.plan_hash())  # fmt: skip
        inputs = [params.model_sha256, *filter(None, [params.statistics_sha256])]
        async with self._tools.reading(*inputs) as (source, *statistics), self._tools.plan_file(params.plan) as plan:
            return await self._made(
                key,
                lambda target: QuantizeTask(
                    source=source, target=target, quantization=params.quantization, threads=self._settings.threads,
                    statistics=statistics[0] if statistics else None, plan=plan,
                ),
                on_progress, about_bytes=source.stat().st_size // 2,
            )  # fmt: skip

    async def _made(
        self, key: str, task: Callable[[Path], ConvertTask | ConvertDllamaTask | QuantizeTask],
        on_progress: Progress, *, about_bytes: int,
    ) -> FileResult:  # fmt: skip
        """Return what was made before, or make it in a child process and take it into the store."""
        known = await self._tools.known(FileResult, key, "sha256")
        if known is not None:
            return known
        await asyncio.to_thread(self._store.free_up, about_bytes)
        async with scratch_file(self._store) as target:
            await run_in_child(task(target), on_progress)
            info = await self._tools.adopt(target)
        result = FileResult(sha256=info.sha256, size_bytes=info.size_bytes)
        self._tools.cache.put(key, result)
        return result

    async def apply(self, params: ApplyParams, context: JobContext) -> ApplyResult:
        """Write the variant as an artifact."""
        return await self._tools.cut(params, context.progress)

    async def verify(self, params: VerifyParams, context: JobContext) -> VerifyResult:
        """Compare byte ranges."""
        async with self._tools.reading(params.base_sha256, params.sha256) as (base, variant):
            if params.plan is not None:
                report = await asyncio.to_thread(Plan(plan=params.plan).prove, base, variant)
            else:
                task = SurgeriesTask(base=base, target=variant, surgeries=params.surgeries, prove=True)
                done = await run_in_child(task, part(context.progress, 0.0, 1.0, "verify"))
                assert done.verification is not None
                report = done.verification
        return VerifyResult(
            n_tensors=report.n_tensors, n_ranges=report.n_ranges, n_bytes=report.n_bytes, plan_hash=report.plan_sha256,
            identical=report.identical,
        )  # fmt: skip

    async def validate(self, params: ValidateParams, context: JobContext) -> ValidateResult:
        """Sanity prompts and perplexity, against the baseline."""
        baseline = None
        if params.baseline_sha256 is not None:
            baseline = await self._evaluation(params.baseline_sha256, part(context.progress, 0.0, 0.5, "baseline"))
        variant = await self._evaluation(params.sha256, part(context.progress, 0.5, 1.0, "variant"))
        return verdict(variant, baseline, max_perplexity_ratio=params.max_perplexity_ratio)

    async def _evaluation(self, sha256: str, on_progress: Progress) -> Evaluation:
        files = [self._settings.heldout_text, self._settings.sanity_prompts]
        hashes = [None if path is None else await asyncio.to_thread(hash_file, path) for path in files]
        key = key_of(kind="evaluate", model=sha256, files=hashes, tokens=self._settings.heldout_tokens)
        known = await self._tools.known(Evaluation, key)
        if known is not None:
            return known
        async with self._tools.reading(sha256) as (model,):
            task = EvaluateTask(
                model=model, heldout=self._settings.heldout_text, prompts=self._settings.sanity_prompts,
                threads=self._settings.threads, max_tokens=self._settings.heldout_tokens,
            )  # fmt: skip
            done = await run_in_child(task, on_progress)
        assert done.evaluation is not None
        self._tools.cache.put(key, done.evaluation)
        return done.evaluation
