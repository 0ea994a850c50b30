"""What every agent that keeps artifacts can be asked: to send one, to keep some (`pin`), to remove what nobody needs.

Not here: the store itself (`shared.files.artifacts`), how artifacts reach a node (`shared.wire.node_jobs.artifacts`).
"""

import asyncio
from collections.abc import Collection
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import FileResponse
from pydantic import Field, StringConstraints

from shared.files.artifacts import ArtifactInfo, ArtifactStore
from shared.kernel.records import Record, Sha256
from shared.wire.job_server import JobContext, JobKind

PinOwner = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class PinParams(Record):
    """What `owner` (a campaign) needs on this machine from now on; nothing releases what it pinned."""

    owner: PinOwner
    sha256s: tuple[Sha256, ...] = ()


class PinResult(Record):
    """What of it is not here yet, and everybody who pins something on this machine now."""

    missing: tuple[Sha256, ...] = ()
    owners: tuple[PinOwner, ...] = ()


class GarbageCollectionParams(Record):
    """Remove what nobody pins until at most `keep_bytes` are used: what can be made again first, then the others."""

    keep_bytes: int = Field(default=0, ge=0)


class GarbageCollectionResult(Record):
    """What was removed, and what is still used."""

    removed: tuple[Sha256, ...]
    freed_bytes: int
    used_bytes: int


class ArtifactJobs:
    """The job kinds `pin` and `collect_garbage` of one store; callers do not hear of the agent's `own` pins."""

    def __init__(self, store: ArtifactStore, *, own: Collection[str] = (), concurrent: bool = False) -> None:
        self._store = store
        self._own = frozenset(own)
        self._concurrent = concurrent

    def kinds(self) -> list[JobKind[Any, Any]]:
        """Return the job kinds."""
        return [
            JobKind("pin", PinParams, self.pin, concurrent=self._concurrent),
            JobKind("collect_garbage", GarbageCollectionParams, self.collect_garbage, concurrent=self._concurrent),
        ]

    async def pin(self, params: PinParams, _job: JobContext) -> PinResult:
        """Keep what a campaign needs from being removed."""
        self._store.pin(params.owner, params.sha256s)
        return PinResult(
            missing=tuple(sha256 for sha256 in params.sha256s if not self._store.has(sha256)),
            owners=tuple(owner for owner in self._store.pinned() if owner not in self._own),
        )

    async def collect_garbage(self, params: GarbageCollectionParams, _job: JobContext) -> GarbageCollectionResult:
        """Remove what nobody pins."""
        removed = await asyncio.to_thread(self._store.collect_garbage, params.keep_bytes)
        return GarbageCollectionResult(
            removed=tuple(info.sha256 for info in removed),
            freed_bytes=sum(info.size_bytes for info in removed),
            used_bytes=self._store.used_bytes(),
        )


def artifact_router(store: ArtifactStore) -> APIRouter:
    """Return read-only endpoints of `store`; ranges are supported."""
    router = APIRouter(prefix="/v1")

    @router.get("/artifacts")
    async def list_artifacts() -> list[ArtifactInfo]:
        """List the artifacts pinned here."""
        return await asyncio.to_thread(store.list)

    @router.get(
        "/artifacts/{sha256}",
        response_class=FileResponse,
        responses={206: {"description": "The part that `Range` asked for"}, 416: {"description": "No such range"}},
    )
    async def get_artifact(sha256: Sha256) -> FileResponse:
        """Send one artifact; `Range` resumes. One that changed on the disk is hashed before it is sent."""
        path = await asyncio.to_thread(store.check, sha256)
        return FileResponse(path, media_type="application/octet-stream")

    return router
