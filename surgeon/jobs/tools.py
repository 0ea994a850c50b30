"""What all handlers need: settings, artifacts, results remembered by input hash, progress by parts.

Variants are artifacts that a plan makes again: they may go when room is short, and are cut again when somebody needs
them.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from shared.files.artifacts import ArtifactInfo, ArtifactStore, scratch_file
from shared.files.integrity import DamagedArtifactError
from shared.kernel.errors import DataError, InfrastructureError, NotFoundError
from shared.kernel.progress import Progress, no_progress, part, throttled
from shared.kernel.records import Record, SurgeryPlan, canonical_json
from shared.wire.surgeries import ApplyParams, ApplyResult
from surgeon.jobs.surgery_list import SurgeryList
from surgeon.kinds.base import Surgery
from surgeon.kinds.plan import Plan
from surgeon.settings import SurgeonSettings
from surgeon.work.cache import ResultCache, key_of
from surgeon.work.child import run_in_child
from surgeon.work.tasks import SurgeriesTask

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Tools:
    """One store and one cache, shared by all handlers."""

    settings: SurgeonSettings
    store: ArtifactStore
    cache: ResultCache

    @classmethod
    def of(cls, settings: SurgeonSettings) -> "Tools":
        """Return the tools that work in the settings' state folder."""
        cache = ResultCache(settings.state_dir / "cache")
        store = ArtifactStore(
            settings.state_dir / "artifacts", quota_bytes=settings.artifact_quota_bytes,
            can_be_remade=lambda sha256: cache.has(_origin_key(sha256)),
        )  # fmt: skip
        return cls(settings, store, cache)

    async def known(self, cls: type[R], key: str, *artifacts: str) -> R | None:
        """Return a remembered result whose fields named in `artifacts` are hashes of what is still here, undamaged."""
        found = self.cache.get(cls, key)
        if found is None:
            return None
        for name in artifacts:
            if not await self._is_here(getattr(found, name), needed=False):
                return None
        return found

    @asynccontextmanager
    async def reading(self, *sha256s: str) -> AsyncIterator[list[Path]]:
        """Give the paths of artifacts, which stay while the block runs; a variant that is gone is cut again.

        What changed on the disk since its hash was taken is hashed first; a variant that is damaged is cut again too.

        Raises:
            NotFoundError: one is not here and cannot be cut again.
            DamagedArtifactError: one is not what its name says, and cannot be cut again.
            EpiError: cutting it again failed.
        """
        async with AsyncExitStack() as stack:
            paths = []
            for sha256 in sha256s:
                origin = self.cache.get(ApplyParams, _origin_key(sha256))
                if await self._is_here(sha256, needed=origin is None):
                    origin = None
                if origin is not None and (again := await self.cut(origin, no_progress)).sha256 != sha256:
                    raise DataError(f"the plan makes {again.sha256} now", where=sha256, hint="prepare the base again")
                paths += stack.enter_context(self.store.reading(sha256))
            yield paths

    async def _is_here(self, sha256: str, *, needed: bool) -> bool:
        """Tell whether an artifact is here and what its name says; one that is `needed` raises why it is not."""
        try:
            await asyncio.to_thread(self.store.check, sha256)
        except (NotFoundError, DamagedArtifactError):
            if needed:
                raise
            return False
        return True

    async def adopt(self, path: Path, *, expected_sha256: str | None = None) -> ArtifactInfo:
        """Take a finished file into the store.

        Raises:
            NoRoomError: it does not fit the quota.
            DataError: its hash is not the expected one.
        """
        await asyncio.to_thread(self.store.make_room, 0)  # what lies in the scratch folder counts already
        return await asyncio.to_thread(self.store.adopt, path, expected_sha256=expected_sha256)

    async def cut(self, params: ApplyParams, on_progress: Progress) -> ApplyResult:
        """Return the variant that a plan or surgeries make of a base, as an artifact; what is here is not made again.

        Raises:
            NoRoomError: it does not fit the quota.
            EpiError: what the surgeries raise.
        """
        async with self.reading(params.base_sha256) as (base,):
            if params.plan is not None:
                key = key_of(kind="apply", base=params.base_sha256, plan=params.plan.plan_hash())
                return await self._made(params, key, base, Plan(plan=params.plan), on_progress)
            done = await asyncio.to_thread(SurgeryList.of, params.surgeries, base)
            if done.plan is not None:
                made = await self.cut(ApplyParams(base_sha256=params.base_sha256, plan=done.plan), on_progress)
            else:
                key = key_of(
                    kind="apply", base=params.base_sha256, surgeries=done.sha256, brought_by=dict(done.brought_by)
                )
                made = await self._made(params, key, base, None, on_progress)
        return made.model_copy(
            update={"surgeries_sha256": done.sha256, "plan": done.plan, "brought_by": dict(done.brought_by)}
        )

    async def _made(
        self, params: ApplyParams, key: str, base: Path, plan: Plan | None, on_progress: Progress
    ) -> ApplyResult:
        """Do what is not known: a plan in this process, since it copies bytes; anything else in a child."""
        known = await self.known(ApplyResult, key, "sha256")
        if known is not None:
            return known
        started = time.monotonic()
        size = base.stat().st_size if plan is None else await asyncio.to_thread(plan.size_bytes, base)
        await asyncio.to_thread(self.store.make_room if plan is not None else self.store.free_up, size)
        async with scratch_file(self.store) as target:
            if plan is not None:
                await _write(plan, base, target, on_progress)
            else:
                await run_in_child(SurgeriesTask(base=base, target=target, surgeries=params.surgeries), on_progress)
            info = await self.adopt(target)
        result = ApplyResult(
            sha256=info.sha256, size_bytes=info.size_bytes, seconds=round(time.monotonic() - started, 6)
        )
        if info.sha256 != params.base_sha256:  # what changes nothing makes the base again
            self.cache.put(_origin_key(info.sha256), params)
        self.cache.put(key, result)
        keep = (info.sha256, params.base_sha256)
        await asyncio.to_thread(self.store.trim_remade, self.settings.variant_quota_bytes, keep=keep)
        return result

    @asynccontextmanager
    async def plan_file(self, plan: SurgeryPlan | None) -> AsyncIterator[Path | None]:
        """Yield the plan as a file for a child process."""
        if plan is None:
            yield None
            return
        async with scratch_file(self.store) as path:
            path.write_bytes(canonical_json(plan))
            yield path


async def _write(surgery: Surgery, base: Path, target: Path, on_progress: Progress) -> None:
    stopped = threading.Event()
    publish = throttled(part(on_progress, 0.0, 0.9))

    def report(fraction: float, message: str) -> None:
        if stopped.is_set():
            raise InfrastructureError("the job was cancelled", where=target.name)
        publish(fraction, message)

    try:
        await asyncio.to_thread(surgery.apply, base, target, report)
    except asyncio.CancelledError:
        stopped.set()  # a thread cannot be cancelled: it stops at its next report and removes what it wrote
        raise


def _origin_key(sha256: str) -> str:
    """Return where the cache remembers which base and plan make an artifact."""
    return key_of(kind="origin", sha256=sha256)
