"""The job server that every agent mounts: typed job kinds, a job table on disk (`job_table`), an event feed.

A kind is registered with the pydantic models of its parameters and its result and an async handler; there is no
run-a-command kind. Jobs of one server run one after another unless their kind is registered `concurrent`. On start,
jobs that were queued or running when the process died become `interrupted`: a job is never silently run twice. How a
job ended is known from that moment on, also while the disk is too full to remember it.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from fastapi import APIRouter, Query, WebSocket
from pydantic import BaseModel, ValidationError

from shared.files.disk import storage_error
from shared.files.sqlite import INT64_MAX
from shared.kernel.clock import NS_PER_S, utc_ns
from shared.kernel.errors import (
    BugError,
    ConfigurationError,
    ConflictError,
    EpiError,
    ErrorPayload,
    NotFoundError,
    from_payload,
)
from shared.kernel.settings import JobHistory
from shared.service.background import log_death
from shared.service.bodies import LARGE
from shared.service.broadcaster import Broadcaster, send_until_gone
from shared.service.health import HealthRegistry
from shared.service.logs import log_fields
from shared.service.quiet_log import QuietLog
from shared.wire.compatibility import refused_parameters
from shared.wire.job_table import INTERRUPTED, JobTable
from shared.wire.protocol import PROTOCOL_VERSION, Event, JobId, JobRequest, JobState, JobStatus, JobSummary

log = logging.getLogger(__name__)

P = TypeVar("P", bound=BaseModel)
R = TypeVar("R", bound=BaseModel)

_CANCELLED = ErrorPayload(code="configuration", fault="configuration", message="the job was cancelled")
JOB_BODIES = {"/v1/jobs/": LARGE}
"""What a job's parameters may hold: the prompts of a benchmark, a plan with merge matrices (`make_app`)."""
_EVENTS_KEPT = 1000
_SUBSCRIBER_QUEUE = 256


class JobContext:
    """What a handler may do besides returning: report progress, and know whether somebody else wants the machine."""

    def __init__(self, server: "JobServer", job_id: str) -> None:
        self._server = server
        self.job_id = job_id

    def progress(self, fraction: float, message: str = "") -> None:
        """Tell followers how far the job is; held in memory only, so it costs no disk write."""
        self._server.report(self.job_id, min(max(fraction, 0.0), 1.0), message)

    @property
    def is_alone(self) -> bool:
        """True while the agent has no other job, running or waiting; may be asked from any thread."""
        return self._server.n_unfinished <= 1


@dataclass(frozen=True)
class JobKind(Generic[P, R]):
    """One thing an agent can be asked to do."""

    name: str
    params: type[P]
    handler: Callable[[P, JobContext], Awaitable[R]]
    concurrent: bool = False
    in_window: bool = False
    """A measurement window's job: from its submission until well after its end this process writes no log."""


class JobServer:
    """Runs jobs, remembers them in SQLite and tells followers."""

    def __init__(
        self, path: Path, kinds: list[JobKind[Any, Any]], health: HealthRegistry | None = None,
        history: JobHistory | None = None,
    ) -> None:  # fmt: skip
        """`health` is where it reports what keeps it from its work; the daemon that mounts it gives its own."""
        self._path = path
        self._history = history or JobHistory()
        self._health = health or HealthRegistry()
        self._kinds = {kind.name: kind for kind in kinds}
        self._table: JobTable | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._live: dict[str, JobState] = {}
        self._serial = asyncio.Lock()
        self._events: list[Event] = []
        self._seq = 0
        self._feed: Broadcaster[Event] = Broadcaster(_SUBSCRIBER_QUEUE)
        self._stopping = False
        self._quiet_log = QuietLog()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["JobServer"]:
        """Open the job table, mark orphans `interrupted`, and on leaving cancel what still runs.

        Raises:
            DataError: the table is damaged.
            StorageError: its disk takes nothing at all.
        """
        self._table = await JobTable.open(self._path, self._health, self._history)
        try:
            yield self
        finally:
            self._stopping = True
            for task in list(self._tasks.values()):
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await self._table.close()
            self._table = None
            self._quiet_log.end()

    @property
    def _open(self) -> JobTable:
        if self._table is None:
            raise BugError("the job server is not running")
        return self._table

    async def submit(self, job_id: str, request: JobRequest) -> tuple[JobState, bool]:
        """Start a job, or return the known one; the second value tells whether it is new.

        Raises:
            ConflictError: another protocol major, or the id is known with another kind or parameters.
            ConfigurationError: unknown kind, or parameters that do not fit it.
        """
        if request.protocol[0] != PROTOCOL_VERSION[0]:
            raise ConflictError(
                f"protocol {request.protocol[0]}.{request.protocol[1]} was asked,"
                f" this agent speaks {PROTOCOL_VERSION[0]}.{PROTOCOL_VERSION[1]}",
                where=job_id, hint="install the same version of EPI Factory on every machine",
            )  # fmt: skip
        kind = self._kinds.get(request.kind)
        if kind is None:
            raise ConfigurationError(
                f"unknown job kind {request.kind!r}", where=job_id, hint=f"known: {', '.join(sorted(self._kinds))}"
            )
        try:
            params = kind.params.model_validate(request.params)
        except ValidationError as error:
            raise refused_parameters(error, request.protocol, job_id) from error
        body = json.dumps(request.params, sort_keys=True)
        new = JobState(id=job_id, kind=request.kind, status="queued", created_utc_ns=utc_ns())
        known = await self._open.add(new, body, lambda added: self._begin(added, kind, params, request.delay_s))
        if known is None:
            return new, True
        if known != (request.kind, body) and not _is_same(kind, params, *known):
            raise ConflictError("this job id exists with another request", where=job_id, hint="use a new job id")
        return await self.get(job_id), False

    def _begin(self, state: JobState, kind: JobKind[Any, Any], params: BaseModel, delay_s: float) -> None:
        self._live[state.id] = state
        self._tell(state)
        task = asyncio.create_task(self._run(state.id, kind, params, delay_s), name=f"job {state.id}")
        self._tasks[state.id] = task
        task.add_done_callback(log_death)
        task.add_done_callback(lambda _: self._tasks.pop(state.id, None))

    @property
    def n_unfinished(self) -> int:
        """How many jobs are queued or running."""
        return len(self._tasks)

    async def get(self, job_id: str) -> JobState:
        """Return a job.

        Raises:
            NotFoundError: no such job.
        """
        state = self._live.get(job_id) or await self._open.get(job_id)
        if state is None:
            raise NotFoundError("no such job", where=job_id)
        return self._live.get(job_id, state)

    async def list(
        self, limit: int = 100, before_utc_ns: int | None = None, *, unfinished: bool = False
    ) -> list[JobSummary]:
        """Return jobs, or only those queued or running, newest first; page on with the `created_utc_ns` of the last."""
        found = await self._open.list(
            limit, before_utc_ns if before_utc_ns is not None else INT64_MAX, unfinished=unfinished
        )
        jobs = [self._live[job.id].summary if job.id in self._live else job for job in found]
        return [job for job in jobs if not (unfinished and job.is_terminal)]

    async def cancel(self, job_id: str) -> JobState:
        """Ask a job to stop; a finished job stays as it is."""
        state = await self.get(job_id)
        task = self._tasks.get(job_id)
        if task is not None and not state.is_terminal:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return await self.get(job_id)

    def report(self, job_id: str, progress: float, message: str) -> None:
        """Record progress of a running job in memory and tell followers."""
        state = self._live.get(job_id)
        if state is not None and not state.is_terminal:
            words = message.encode(errors="replace").decode()  # a file's own names may be in it, text or not
            state = state.model_copy(update={"progress": progress, "message": words})
            self._live[job_id] = state
            self._tell(state)

    async def events(self, since: int) -> AsyncGenerator[Event, None]:
        """Yield events after `since`; a follower that is too slow loses the oldest."""
        with self._feed.subscription(event for event in self._events if event.seq > since) as subscription:
            async for event in subscription:
                yield event

    def _tell(self, state: JobState) -> None:
        self._seq += 1
        event = Event(seq=self._seq, utc_ns=utc_ns(), job=state)
        self._events.append(event)
        del self._events[:-_EVENTS_KEPT]
        self._feed.publish(event)

    async def _run(self, job_id: str, kind: JobKind[Any, Any], params: BaseModel, delay_s: float) -> None:
        with log_fields(job=job_id), self._quiet_log.around(kind.in_window):
            try:
                await asyncio.sleep(delay_s)
                if kind.concurrent:
                    await self._execute(job_id, kind, params)
                else:
                    async with self._serial:
                        await self._execute(job_id, kind, params)
            except asyncio.CancelledError:
                if self._stopping:
                    await self._end(job_id, "interrupted", error=INTERRUPTED)
                else:
                    await self._end(job_id, "cancelled", error=_CANCELLED)

    async def _execute(self, job_id: str, kind: JobKind[Any, Any], params: BaseModel) -> None:
        state = self._live[job_id].model_copy(update={"status": "running", "started_utc_ns": utc_ns()})
        self._live[job_id] = state
        await self._open.keep(state)
        self._tell(state)
        log.info("%s begins", kind.name)
        try:
            result = (await kind.handler(params, JobContext(self, job_id))).model_dump(mode="json")
        except EpiError as error:
            await self._end(job_id, "failed", error=error.to_payload())
        except Exception as error:
            payload = self._payload_of(error, job_id)
            log.error("job %s failed: %s", job_id, payload.message, exc_info=payload.fault == "bug")
            await self._end(job_id, "failed", error=payload)
        else:
            await self._end(job_id, "finished", result=result)

    def _payload_of(self, error: Exception, job_id: str) -> ErrorPayload:
        if isinstance(error, OSError):
            path = Path(error.filename) if isinstance(error.filename, str) else self._path
            if (of_the_disk := storage_error(error, path, "what the job makes")) is not None:
                return of_the_disk.to_payload()
        return ErrorPayload(code="bug", fault="bug", message=f"{type(error).__name__}: {error}", where=job_id)

    async def _end(
        self, job_id: str, status: JobStatus, *, result: dict[str, Any] | None = None, error: ErrorPayload | None = None
    ) -> None:
        """Say how a job ended; one that has ended (its end was just being written) stays as it ended."""
        state = self._live[job_id]
        if not state.is_terminal:
            state = state.model_copy(
                update={
                    "status": status, "progress": 1.0 if status == "finished" else state.progress, "result": result,
                    "error": error, "ended_utc_ns": utc_ns(),
                }
            )  # fmt: skip
            self._live[job_id] = state
            _log_end(state)
        await self._open.keep(state)
        del self._live[job_id]
        self._tell(state)


def _is_same(kind: JobKind[Any, Any], params: BaseModel, known_kind: str, known_body: str) -> bool:
    """Tell whether a known request means the same though it is written otherwise: as an earlier version did."""
    if known_kind != kind.name:
        return False
    try:
        return bool(kind.params.model_validate_json(known_body) == params)
    except ValidationError:
        return False


def _log_end(state: JobState) -> None:
    seconds = ((state.ended_utc_ns or 0) - (state.started_utc_ns or state.created_utc_ns)) / NS_PER_S
    why = "" if state.error is None or state.status == "finished" else f": {from_payload(state.error)}"
    level = logging.WARNING if state.status == "failed" else logging.INFO
    log.log(level, "%s %s after %.1f s%s", state.kind, state.status, seconds, why)


def job_router(server: JobServer) -> APIRouter:
    """Return the REST and WebSocket endpoints of `server`."""
    router = APIRouter(prefix="/v1")

    @router.put("/jobs/{job_id:path}")
    async def put_job(job_id: JobId, request: JobRequest) -> JobState:
        """Start a job; a known id returns the existing job."""
        state, _ = await server.submit(job_id, request)
        return state

    @router.get("/jobs")
    async def list_jobs(
        limit: int = Query(100, ge=1, le=1000),
        before_utc_ns: int | None = Query(None, ge=0, le=INT64_MAX),
        unfinished: bool = Query(False, description="only jobs that are queued or running"),
    ) -> list[JobSummary]:
        """List jobs, newest first, without parameters and results."""
        return await server.list(limit, before_utc_ns, unfinished=unfinished)

    @router.get("/jobs/{job_id:path}")
    async def get_job(job_id: JobId) -> JobState:
        """Return one job."""
        return await server.get(job_id)

    @router.delete("/jobs/{job_id:path}")
    async def cancel_job(job_id: JobId) -> JobState:
        """Cancel a job."""
        return await server.cancel(job_id)

    @router.websocket("/events")
    async def events(socket: WebSocket, since: int = 0) -> None:
        async def texts() -> AsyncGenerator[str, None]:
            async for event in server.events(since):
                yield event.model_dump_json()

        await socket.accept()
        await send_until_gone(socket, texts())

    return router
