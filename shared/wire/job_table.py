"""The jobs of one server on disk: what was asked, and what came of it, also while the disk takes nothing.

A state that the disk refuses is kept in memory, is what everybody is told, and is written when there is room again.
Jobs that were queued or running when the process died are `interrupted`; those that ended long ago are forgotten
(`JobHistory`). Not here: doing the jobs (`job_server`).
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from shared.files.database import Database
from shared.files.row_sums import SummedTable
from shared.files.sqlite import INT64_MAX, open_database
from shared.kernel.clock import utc_ns
from shared.kernel.errors import DataError, EpiError, ErrorPayload, StorageError
from shared.kernel.settings import JobHistory
from shared.service.health import HealthRegistry
from shared.wire.protocol import JobState, JobSummary

INTERRUPTED: Final = ErrorPayload(
    code="infrastructure", fault="infrastructure", message="the agent stopped during the job"
)
_CURE: Final = (
    "stop this daemon and move the file and what begins with its name away: it holds no measurements, the daemon starts"
    " with an empty table then"
)
JOB: Final = SummedTable(
    "job",
    (
        "id", "kind", "params", "status", "progress", "message", "result", "error", "created_utc_ns", "started_utc_ns",
        "ended_utc_ns",
    ),
)  # fmt: skip
_MIGRATIONS: Final = (
    """
    CREATE TABLE job (
        id TEXT PRIMARY KEY, kind TEXT NOT NULL, params TEXT NOT NULL, status TEXT NOT NULL,
        progress REAL NOT NULL DEFAULT 0, message TEXT NOT NULL DEFAULT '', result TEXT, error TEXT,
        created_utc_ns INTEGER NOT NULL, started_utc_ns INTEGER, ended_utc_ns INTEGER
    ) STRICT;
    CREATE INDEX job_by_time ON job (created_utc_ns);
    """,
    JOB.stamp(),
)
_INSERT: Final = (
    "INSERT INTO job (id, kind, params, status, created_utc_ns) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
)
_UPDATE: Final = (
    "UPDATE job SET status = ?, progress = ?, message = ?, result = ?, error = ?, started_utc_ns = ?, ended_utc_ns = ?"
    " WHERE id = ?"
)
_SUMMARY: Final = "id, kind, status, progress, message, error, created_utc_ns, started_utc_ns, ended_utc_ns"
_PRUNE: Final = """
    DELETE FROM job WHERE id IN (
        SELECT id FROM job
        WHERE status NOT IN ('queued', 'running') AND ended_utc_ns < :not_since AND (
            ended_utc_ns < :ended_before
            OR created_utc_ns <= (SELECT created_utc_ns FROM job ORDER BY created_utc_ns DESC LIMIT 1 OFFSET :jobs)
        ) ORDER BY created_utc_ns LIMIT :most
    )"""
_DAY_NS: Final = 86_400_000_000_000
_HOUR_NS: Final = 3_600_000_000_000
"""A job that ended this short a time ago is kept in any case: whoever asked for it may still want to know how."""
_PRUNED_AT_ONCE: Final = 500


class JobTable:
    """The newest state of every job."""

    def __init__(self, db: Database, health: HealthRegistry, history: JobHistory) -> None:
        self._db = db
        self._history = history
        self._pruned_utc_ns = 0
        self._unwritten: dict[str, JobState] = {}
        self._flushing: asyncio.Task[None] | None = None
        db.report_to(health, "job table")
        db.on_problem(self._on_problem)

    @classmethod
    async def open(cls, path: Path, health: HealthRegistry, history: JobHistory) -> "JobTable":
        """Open or make the table; what no living process works at any more becomes `interrupted`.

        Raises:
            DataError: the file is damaged.
            StorageError: its disk cannot be read, or takes nothing at all.
        """
        db = await open_database(
            path, _MIGRATIONS, name="the job table", cure=_CURE, summed=(JOB,), indexes_checked=True
        )
        table = cls(db, health, history)
        try:
            for job in await table.list(-1, unfinished=True):
                update = {"status": "interrupted", "error": INTERRUPTED, "ended_utc_ns": utc_ns()}
                table._unwritten[job.id] = JobState.model_validate({**job.model_dump(), **update})
            await table._flush()
        except BaseException:
            await table._db.close()
            raise
        return table

    async def close(self) -> None:
        """Write what can be written, and close."""
        await self._flush()
        if self._flushing is not None:
            await asyncio.gather(self._flushing, return_exceptions=True)
        await self._db.close()

    async def add(self, state: JobState, params: str, on_added: Callable[[JobState], None]) -> tuple[str, str] | None:
        """Remember a new job; `on_added` is called once when it is. A known id returns its kind and parameters.

        Raises:
            StorageError: the disk takes nothing: the job is not taken.
        """

        def change(db: sqlite3.Connection) -> tuple[str, str] | None:
            self._prune(db)
            if db.execute(_INSERT, (state.id, state.kind, params, state.status, state.created_utc_ns)).rowcount:
                return None
            row = db.execute("SELECT kind, params FROM job WHERE id = ?", (state.id,)).fetchone()
            return row["kind"], row["params"]

        def committed(known: tuple[str, str] | None) -> None:
            if known is None:
                on_added(state)

        return await self._db.write(change, committed)

    async def keep(self, state: JobState) -> None:
        """Put a job's new state in place of the one before; it holds from this call on, whatever the disk says."""
        self._unwritten[state.id] = state
        await self._flush()

    async def get(self, job_id: str) -> JobState | None:
        """Return a job, None when there is none of this id."""
        if (newer := self._unwritten.get(job_id)) is not None:
            return newer
        sql = "SELECT * FROM job WHERE id = ?"
        rows = await self._db.read(lambda db: JOB.checked(db.execute(sql, (job_id,)).fetchall()))
        return self._unwritten.get(job_id) or _from_row(rows[0]) if rows else None

    async def list(self, limit: int, before_utc_ns: int = INT64_MAX, *, unfinished: bool = False) -> list[JobSummary]:
        """Return jobs, or only those queued or running, newest first; a negative limit means all."""
        only = " AND status IN ('queued', 'running')" if unfinished else ""
        sql = f"SELECT {_SUMMARY} FROM job WHERE created_utc_ns < ?{only} ORDER BY created_utc_ns DESC LIMIT ?"
        rows = await self._db.read(lambda db: db.execute(sql, (before_utc_ns, limit)).fetchall())
        newer = self._unwritten
        found = [newer[row["id"]].summary if row["id"] in newer else _summary(row) for row in rows]
        return [job for job in found if not (unfinished and job.is_terminal)]

    def _prune(self, db: sqlite3.Connection) -> None:
        """Forget what ended long ago, some of it once an hour; part of a write that is made anyway."""
        now = utc_ns()
        if now - self._pruned_utc_ns < _HOUR_NS:
            return
        limits = {
            "not_since": now - _HOUR_NS, "ended_before": now - int(self._history.days * _DAY_NS),
            "jobs": self._history.jobs, "most": _PRUNED_AT_ONCE,
        }  # fmt: skip
        if db.execute(_PRUNE, limits).rowcount < _PRUNED_AT_ONCE:
            self._pruned_utc_ns = now

    async def _flush(self) -> None:
        states = list(self._unwritten.values())
        if not states:
            return
        rows = [_to_row(state) for state in states]

        def written(_: object) -> None:
            for state in states:
                if self._unwritten.get(state.id) is state:
                    del self._unwritten[state.id]

        with suppress(StorageError, DataError):  # the database tells, and tries again
            await self._db.write(lambda db: db.executemany(_UPDATE, rows), written)

    def _on_problem(self, problem: EpiError | None) -> None:
        if problem is None and self._unwritten:
            self._flushing = asyncio.create_task(self._flush())


def _to_row(state: JobState) -> tuple[object, ...]:
    return (
        state.status, state.progress, state.message,
        None if state.result is None else json.dumps(state.result),
        None if state.error is None else state.error.model_dump_json(),
        state.started_utc_ns, state.ended_utc_ns, state.id,
    )  # fmt: skip


def _summary(row: sqlite3.Row) -> JobSummary:
    return JobSummary(
        id=row["id"], kind=row["kind"], status=row["status"], progress=row["progress"], message=row["message"],
        error=None if row["error"] is None else ErrorPayload.model_validate_json(row["error"]),
        created_utc_ns=row["created_utc_ns"], started_utc_ns=row["started_utc_ns"], ended_utc_ns=row["ended_utc_ns"],
    )  # fmt: skip


def _from_row(row: sqlite3.Row) -> JobState:
    result = None if row["result"] is None else json.loads(row["result"])
    return JobState.model_validate({**_summary(row).model_dump(), "result": result})
