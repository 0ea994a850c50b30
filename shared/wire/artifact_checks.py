"""Asking an agent whether its artifacts are still what their names say: some now, all of them bit by bit, and a report.

Not here: how a file is checked and set aside (`shared.files.integrity`), when a scrub may be asked for (whoever knows
that no window is open).
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter
from pydantic import Field, ValidationError

from shared.files.artifacts import ArtifactInfo, ArtifactStore
from shared.files.atomic import write_file
from shared.files.integrity import DamagedArtifact, DamagedArtifactError
from shared.kernel.clock import utc_ns
from shared.kernel.errors import InfrastructureError, NotFoundError
from shared.kernel.records import Record, Sha256
from shared.service.health import Problem
from shared.wire.job_server import JobContext, JobKind

_REPORT_EVERY_S: Final = 0.5
_Maker = Callable[[int, int, str], Callable[[int], None]]
"""(bytes done before, bytes in all, message) -> `on_bytes` of one file."""


class CheckParams(Record):
    """Make sure that artifacts are what their names say; those of `anew` are hashed even if they look unchanged."""

    sha256s: tuple[Sha256, ...]
    anew: tuple[Sha256, ...] = ()


class CheckResult(Record):
    """What is not here (any more), and what of it was found damaged and set aside."""

    missing: tuple[Sha256, ...] = ()
    damaged: tuple[DamagedArtifact, ...] = ()


class ScrubParams(Record):
    """Hash every artifact, from the disk, whose hash was last taken before `hashed_before_utc_ns`; oldest first."""

    hashed_before_utc_ns: int = Field(ge=0)


class ScrubResult(Record):
    """What a scrub did; what is left is taken up by the next one, whole files at a time."""

    n_hashed: int
    hashed_bytes: int
    n_left: int
    damaged: tuple[DamagedArtifact, ...] = ()
    ended_utc_ns: int
    reason: str = Field(default="", description="why something is left")


class ArtifactReport(Record):
    """How the artifacts of one agent are."""

    n_artifacts: int
    total_bytes: int
    n_never_hashed: int = Field(description="of these nothing is known since this agent keeps hash records")
    oldest_hash_utc_ns: int | None = Field(description="when the one that waits longest was hashed; null: none was")
    damaged: tuple[DamagedArtifact, ...] = Field(default=(), description="set aside and still there")
    last_scrub: ScrubResult | None = None


class ArtifactChecks:
    """The job kinds `check_artifacts` and `scrub` of one store, and its report."""

    def __init__(self, store: ArtifactStore, *, concurrent: bool = False) -> None:
        self._store = store
        self._concurrent = concurrent
        self._last = store.root / "scrub.json"

    def kinds(self) -> list[JobKind[Any, Any]]:
        """Return the job kinds; a scrub stands in nobody's way, since it ends when another job comes."""
        return [
            JobKind("check_artifacts", CheckParams, self.check, concurrent=self._concurrent),
            JobKind("scrub", ScrubParams, self.scrub, concurrent=True),
        ]

    async def check(self, params: CheckParams, job: JobContext) -> CheckResult:
        """Check some artifacts."""
        missing, damaged = [], []
        sizes = {one.sha256: one.size_bytes for one in await asyncio.to_thread(self._store.list)}
        total = sum(sizes.get(sha256, 0) for sha256 in params.sha256s)
        done = 0
        with _stoppable(job) as report:
            for number, sha256 in enumerate(params.sha256s, start=1):
                on_bytes = report(done, total, f"hashing artifact {number} of {len(params.sha256s)}")
                try:
                    await asyncio.to_thread(self._store.check, sha256, anew=sha256 in params.anew, on_bytes=on_bytes)
                except NotFoundError:
                    missing.append(sha256)
                except DamagedArtifactError:
                    missing.append(sha256)
                    if (found := self._store.integrity.quarantine.find(sha256)) is not None:
                        damaged.append(found)
                done += sizes.get(sha256, 0)
        return CheckResult(missing=tuple(missing), damaged=tuple(damaged))

    async def scrub(self, params: ScrubParams, job: JobContext) -> ScrubResult:
        """Hash what was not hashed for long, as long as this is the only job here."""
        due = await asyncio.to_thread(self._due, params.hashed_before_utc_ns)
        total = sum(one.size_bytes for one in due)
        n_hashed = done = 0
        reason, damaged = "", []
        with _stoppable(job, only_job=True) as report:
            for number, one in enumerate(due, start=1):
                on_bytes = report(done, total, f"artifact {number} of {len(due)}, {total >> 20} MiB in all")
                try:
                    await asyncio.to_thread(self._store.check, one.sha256, anew=True, on_bytes=on_bytes, from_disk=True)
                except NotFoundError:
                    continue  # removed meanwhile
                except DamagedArtifactError:
                    if (found := self._store.integrity.quarantine.find(one.sha256)) is not None:
                        damaged.append(found)
                except _StoppedError as stopped:
                    reason = stopped.message
                    break
                except InfrastructureError as error:
                    reason = str(error)
                    continue
                n_hashed += 1
                done += one.size_bytes
        result = ScrubResult(
            n_hashed=n_hashed, hashed_bytes=done, n_left=len(due) - n_hashed, damaged=tuple(damaged),
            ended_utc_ns=utc_ns(), reason=reason,
        )  # fmt: skip
        await asyncio.to_thread(write_file, self._last, result.model_dump_json())
        return result

    def _due(self, hashed_before_utc_ns: int) -> list[ArtifactInfo]:
        """Return what was last hashed before that time, the oldest first, what was never hashed before all."""
        hashed = {info.sha256: self._hashed_utc_ns(info.sha256) or 0 for info in self._store.list()}
        due = [info for info in self._store.list() if hashed.get(info.sha256, 0) < hashed_before_utc_ns]
        return sorted(due, key=lambda info: hashed.get(info.sha256, 0))

    def _hashed_utc_ns(self, sha256: str) -> int | None:
        known = self._store.integrity.hashes.get(sha256)
        return None if known is None else known.hashed_utc_ns

    def report(self) -> ArtifactReport:
        """Say how the artifacts are."""
        infos = self._store.list()
        times = [self._hashed_utc_ns(info.sha256) for info in infos]
        hashed = [at for at in times if at is not None]
        return ArtifactReport(
            n_artifacts=len(infos), total_bytes=sum(info.size_bytes for info in infos),
            n_never_hashed=len(times) - len(hashed), oldest_hash_utc_ns=min(hashed, default=None),
            damaged=tuple(self._store.integrity.quarantine.list()), last_scrub=self._last_scrub(),
        )  # fmt: skip

    def _last_scrub(self) -> ScrubResult | None:
        try:
            return ScrubResult.model_validate_json(self._last.read_bytes())
        except (OSError, ValidationError):
            return None

    def problems(self) -> list[Problem]:
        """Return what is set aside, for the agent's health."""
        return [
            Problem(
                f"{one.sentence()} and is set aside as {Path(one.file).name};"
                f" {'it is here again' if self._store.has(one.sha256) else 'nobody has brought it again yet'}"
            )
            for one in self._store.integrity.quarantine.list()
        ]


class _StoppedError(InfrastructureError):
    """The hashing is to end."""


@contextmanager
def _stoppable(
    job: JobContext, *, only_job: bool = False
) -> Iterator[Callable[[int, int, str], Callable[[int], None]]]:
    """Give a maker of `on_bytes` that tell the job's progress; they end a hashing thread when the block is left."""
    loop, over = asyncio.get_running_loop(), threading.Event()
    next_s = 0.0

    def maker(before: int, total: int, message: str) -> Callable[[int], None]:
        def on_bytes(done: int) -> None:
            nonlocal next_s
            if over.is_set():
                raise _StoppedError("the job was cancelled")
            if only_job and not job.is_alone:
                raise _StoppedError("another job came")
            if time.monotonic() >= next_s:
                next_s = time.monotonic() + _REPORT_EVERY_S
                loop.call_soon_threadsafe(job.progress, (before + done) / max(total, 1), message)

        return on_bytes

    try:
        yield maker
    finally:
        over.set()


def artifact_report_router(checks: ArtifactChecks) -> APIRouter:
    """Return the endpoint of the report."""
    router = APIRouter(prefix="/v1")

    @router.get("/artifact_report")
    async def artifact_report() -> ArtifactReport:
        """Say how many artifacts are here, when they were last hashed, and which were found damaged."""
        return await asyncio.to_thread(checks.report)

    return router
