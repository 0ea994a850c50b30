"""Content-addressed files: the name is the SHA-256, downloads resume, nothing half-written has a final name."""

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse

from shared.auth import bearer_guard
from shared.errors import DataError, InfrastructureError, NotFoundError
from shared.records import Record, Sha256

_CHUNK_BYTES = 1 << 20


class ArtifactInfo(Record):
    """One stored file."""

    sha256: Sha256
    size_bytes: int


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_directory(path: Path) -> None:
    """Make a rename inside `path` survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ArtifactStore:
    """Files under `root`, named by their hash; partial files live in `root/partial`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._partial = root / "partial"
        self._partial.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Return where an artifact lies.

        Raises:
            NotFoundError: it is not here.
        """
        path = self.root / sha256
        if not path.is_file():
            raise NotFoundError("no such artifact here", where=sha256)
        return path

    def has(self, sha256: str) -> bool:
        """Tell whether an artifact is here."""
        return (self.root / sha256).is_file()

    def list(self) -> list[ArtifactInfo]:
        """Return what is here, ordered by hash."""
        return [
            ArtifactInfo(sha256=entry.name, size_bytes=entry.stat().st_size)
            for entry in sorted(self.root.iterdir())
            if entry.is_file() and len(entry.name) == 64
        ]

    def scratch(self) -> Path:
        """Return a fresh path on the same file system, to be given to `adopt`."""
        return self._partial / uuid.uuid4().hex

    def adopt(self, path: Path, *, expected_sha256: str | None = None) -> ArtifactInfo:
        """Hash a finished scratch file, make it durable and give it its name.

        Raises:
            DataError: the hash differs from `expected_sha256`; the file is removed.
        """
        sha256 = hash_file(path)
        if expected_sha256 is not None and sha256 != expected_sha256:
            path.unlink()
            raise DataError(f"hash {sha256} differs from the expected {expected_sha256}", where=path.name)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.replace(self.root / sha256)
        fsync_directory(self.root)
        return ArtifactInfo(sha256=sha256, size_bytes=(self.root / sha256).stat().st_size)

    async def download(
        self, base_url: str, token: str | None, sha256: str, *, on_bytes: Callable[[int, int], None] | None = None
    ) -> int:
        """Bring an artifact from another agent, resuming a partial file; return the bytes received.

        `on_bytes` is called with (bytes so far, total).

        Raises:
            InfrastructureError: the source cannot be reached or does not have it.
            DataError: what arrived has another hash; the partial file is removed.
        """
        if self.has(sha256):
            return 0
        partial = self._partial / f"{sha256}.download"
        received = 0
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        offset = partial.stat().st_size if partial.exists() else 0
        if offset:
            headers["Range"] = f"bytes={offset}-"
        try:
            async with (
                httpx.AsyncClient(timeout=60) as client,
                client.stream("GET", f"{base_url}/v1/artifacts/{sha256}", headers=headers) as response,
            ):
                if response.status_code == 416:
                    partial.unlink()
                    raise DataError("the partial file does not fit the source; it was removed", where=sha256)
                if response.status_code not in (200, 206):
                    raise InfrastructureError(f"the source answered HTTP {response.status_code}", where=base_url)
                if response.status_code == 200:
                    offset = 0
                total = offset + int(response.headers.get("content-length", 0))
                with partial.open("r+b" if offset else "wb") as file:
                    file.seek(offset)
                    async for chunk in response.aiter_bytes(_CHUNK_BYTES):
                        file.write(chunk)
                        received += len(chunk)
                        if on_bytes is not None:
                            on_bytes(offset + received, total)
        except httpx.TransportError as error:
            raise InfrastructureError(f"the download broke: {error!r}", where=base_url) from error
        await asyncio.to_thread(self.adopt, partial, expected_sha256=sha256)
        return received


def artifact_router(store: ArtifactStore, token: str | None) -> APIRouter:
    """Return read-only endpoints of `store`, guarded by the bearer token; ranges are supported."""
    router = APIRouter(prefix="/v1", dependencies=[Depends(bearer_guard(token))])

    @router.get("/artifacts")
    async def list_artifacts() -> list[ArtifactInfo]:
        """List the artifacts held here."""
        return await asyncio.to_thread(store.list)

    @router.get("/artifacts/{sha256}")
    async def get_artifact(sha256: Sha256) -> FileResponse:
        """Send one artifact; `Range` resumes."""
        return FileResponse(store.path(sha256), media_type="application/octet-stream")

    return router


@asynccontextmanager
async def scratch_file(store: ArtifactStore) -> AsyncIterator[Path]:
    """Give a scratch path that is removed unless it was adopted."""
    path = store.scratch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
