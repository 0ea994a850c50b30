"""The job server that every agent mounts: typed job kinds, a job table on disk, an event feed.

A kind is registered with the pydantic models of its parameters and its result and an async handler; there is no
run-a-command kind. Jobs of one server run one after another unless their kind is registered `concurrent`. On start,
jobs that were queued or running when the process died become `interrupted`: a job is never silently run twice.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import aiosqlite
from fastapi import APIRouter, Depends, Query, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ValidationError

from shared.files.sqlite import INT64_MAX, open_database
from shared.kernel.clock import utc_ns
from shared.kernel.errors import BugError, ConfigurationError, ConflictError, EpiError, ErrorPayload, NotFoundError
from shared.service.auth import bearer_guard
from shared.service.health import HealthRegistry
from shared.wire.protocol import PROTOCOL_VERSION, Event, JobId, JobRequest, JobState, JobStatus

log = logging.getLogger(__name__)

P = TypeVar("P", bound=BaseModel)
R = TypeVar("R", bound=BaseModel)

_MIGRATIONS = (
    """
    CREATE TABLE job (
        id TEXT PRIMARY KEY, kind TEXT NOT NULL, params TEXT NOT NULL, status TEXT NOT NULL,
        progress REAL NOT NULL DEFAULT 0, message TEXT NOT NULL DEFAULT '', result TEXT, error TEXT,
        created_utc_ns INTEGER NOT NULL, started_utc_ns INTEGER, ended_utc_ns INTEGER
    ) STRICT;
    CREATE INDEX job_by_time ON job (created_utc_ns);
    """,
)
_INTERRUPTED = ErrorPayload(code="infrastructure", fault="infrastructure", message="the agent stopped during the job")
_CANCELLED = ErrorPayload(code="configuration", fault="configuration", message="the job was cancelled")
_EVENTS_KEPT = 1000
_SUBSCRIBER_QUEUE = 256


class JobContext:
    """What a handler may do besides returning: report progress."""

    def __init__(self, server: "JobServer", job_id: str) -> None:
        self._server = server
        self.job_id = job_id

    def progress(self, fraction: float, message: str = "") -> None:
        """Tell followers how far the job is; held in memory only, so it costs no disk write."""
        self._server.report(self.job_id, min(max(fraction, 0.0), 1.0), message)


@dataclass(frozen=True)
class JobKind(Generic[P, R]):
    """One thing an agent can be asked to do."""

    name: str
    params: type[P]
    handler: Callable[[P, JobContext], Awaitable[R]]
    concurrent: bool = False


class JobServer:
    """Runs jobs, remembers them in SQLite and tells followers."""

    def __init__(self, path: Path, kinds: list[JobKind[Any, Any]], health: HealthRegistry | None = None) -> None:
        """`health` is where it reports what keeps it from its work; the daemon that mounts it gives its own."""
        self._path = path
        self._health = health or HealthRegistry()
        self._kinds = {kind.name: kind for kind in kinds}
        self._db: aiosqlite.Connection | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._live: dict[str, JobState] = {}
        self._serial = asyncio.Lock()
        self._events: list[Event] = []
        self._seq = 0
        self._subscribers: set[asyncio.Queue[Event]] = set()
        self._stopping = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator["JobServer"]:
        """Open the job table, mark orphans `interrupted`, and on leaving cancel what still runs."""
        self._db = await open_database(self._path, _MIGRATIONS)
        await self._db.execute(
            "UPDATE job SET status = 'interrupted', error = ?, ended_utc_ns = ? WHERE status IN ('queued', 'running')",
            (_INTERRUPTED.model_dump_json(), utc_ns()),
        )
        try:
            yield self
        finally:
            self._stopping = True
            for task in list(self._tasks.values()):
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await self._db.close()
            self._db = None

    @property
    def _open(self) -> aiosqlite.Connection:
        if self._db is None:
            raise BugError("the job server is not running")
        return self._db

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
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ConfigurationError(first["msg"], where=f"{job_id}: params.{field}") from error
        body = json.dumps(request.params, sort_keys=True)
        cursor = await self._open.execute(
            "INSERT INTO job (id, kind, params, status, created_utc_ns) VALUES (?, ?, ?, 'queued', ?)"
            " ON CONFLICT (id) DO NOTHING",
            (job_id, request.kind, body, utc_ns()),
        )
        if cursor.rowcount == 0:
            async with self._open.execute("SELECT kind, params FROM job WHERE id = ?", (job_id,)) as rows:
                row = await rows.fetchone()
            if row is not None and (row["kind"], row["params"]) != (request.kind, body):
                raise ConflictError("this job id exists with another request", where=job_id, hint="use a new job id")
            return await self.get(job_id), False
        state = await self.get(job_id)
        self._tell(state)
        task = asyncio.create_task(self._run(job_id, kind, params, request.delay_s))
        self._tasks[job_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job_id, None))
        return state, True

    async def get(self, job_id: str) -> JobState:
        """Return a job.

        Raises:
            NotFoundError: no such job.
        """
        if (live := self._live.get(job_id)) is not None:
            return live
        async with self._open.execute("SELECT * FROM job WHERE id = ?", (job_id,)) as rows:
            row = await rows.fetchone()
        if row is None:
            raise NotFoundError("no such job", where=job_id)
        return _from_row(row)

    async def list(
        self, limit: int = 100, before_utc_ns: int | None = None, *, unfinished: bool = False
    ) -> list[JobState]:
        """Return jobs, or only those queued or running, newest first; page on with the `created_utc_ns` of the last."""
        only = " AND status IN ('queued', 'running')" if unfinished else ""
        async with self._open.execute(
            f"SELECT * FROM job WHERE created_utc_ns < ?{only} ORDER BY created_utc_ns DESC LIMIT ?",
            (before_utc_ns if before_utc_ns is not None else INT64_MAX, limit),
        ) as rows:
            return [self._live.get(row["id"]) or _from_row(row) async for row in rows]

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
            state = state.model_copy(update={"progress": progress, "message": message})
            self._live[job_id] = state
            self._tell(state)

    async def events(self, since: int) -> AsyncIterator[Event]:
        """Yield events after `since`; a follower that is too slow loses the oldest."""
        queue: asyncio.Queue[Event] = asyncio.Queue(_SUBSCRIBER_QUEUE)
        for event in self._events[-_SUBSCRIBER_QUEUE:]:
            if event.seq > since:
                queue.put_nowait(event)
        self._subscribers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._subscribers.discard(queue)

    def _tell(self, state: JobState) -> None:
        self._seq += 1
        event = Event(seq=self._seq, utc_ns=utc_ns(), job=state)
        self._events.append(event)
        del self._events[:-_EVENTS_KEPT]
        for queue in self._subscribers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    async def _run(self, job_id: str, kind: JobKind[Any, Any], params: BaseModel, delay_s: float) -> None:
        try:
            await asyncio.sleep(delay_s)
            if kind.concurrent:
                await self._execute(job_id, kind, params)
            else:
                async with self._serial:
                    await self._execute(job_id, kind, params)
        except asyncio.CancelledError:
            if self._stopping:
                await self._end(job_id, "interrupted", error=_INTERRUPTED)
            else:
                await self._end(job_id, "cancelled", error=_CANCELLED)

    async def _execute(self, job_id: str, kind: JobKind[Any, Any], params: BaseModel) -> None:
        started = utc_ns()
        await self._open.execute(
            "UPDATE job SET status = 'running', started_utc_ns = ? WHERE id = ?", (started, job_id)
        )
        state = await self.get(job_id)
        self._live[job_id] = state
        self._tell(state)
        try:
            result = await kind.handler(params, JobContext(self, job_id))
        except EpiError as error:
            await self._end(job_id, "failed", error=error.to_payload())
        except Exception as error:
            log.exception("job %s failed", job_id)
            payload = ErrorPayload(code="bug", fault="bug", message=f"{type(error).__name__}: {error}", where=job_id)
            await self._end(job_id, "failed", error=payload)
        else:
            await self._end(job_id, "finished", result=result.model_dump(mode="json"))

    async def _end(
        self, job_id: str, status: JobStatus, *, result: dict[str, Any] | None = None, error: ErrorPayload | None = None
    ) -> None:
        live = self._live.pop(job_id, None)
        await self._open.execute(
            "UPDATE job SET status = ?, progress = ?, message = ?, result = ?, error = ?, ended_utc_ns = ?"
            " WHERE id = ?",
            (
                status,
                1.0 if status == "finished" else (live.progress if live else 0.0),
                live.message if live else "",
                None if result is None else json.dumps(result),
                None if error is None else error.model_dump_json(),
                utc_ns(),
                job_id,
            ),
        )
        self._tell(await self.get(job_id))


def _from_row(row: aiosqlite.Row) -> JobState:
    return JobState(
        id=row["id"], kind=row["kind"], status=row["status"], progress=row["progress"], message=row["message"],
        result=None if row["result"] is None else json.loads(row["result"]),
        error=None if row["error"] is None else ErrorPayload.model_validate_json(row["error"]),
        created_utc_ns=row["created_utc_ns"], started_utc_ns=row["started_utc_ns"], ended_utc_ns=row["ended_utc_ns"],
    )  # fmt: skip


def job_router(server: JobServer, token: str | None) -> APIRouter:
    """Return the REST and WebSocket endpoints of `server`, guarded by the bearer token."""
    router = APIRouter(prefix="/v1", dependencies=[Depends(bearer_guard(token))])

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
    ) -> list[JobState]:
        """List jobs, newest first."""
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
        await socket.accept()
        feed = server.events(since)

        async def push() -> None:
            async for event in feed:
                await socket.send_text(event.model_dump_json())

        sender = asyncio.create_task(push())
        try:
            while True:
                await socket.receive()
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    return router
