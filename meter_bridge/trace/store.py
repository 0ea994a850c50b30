"""The trace database: one writer, batches, raw values.

`put` never waits: it appends to a bounded list in memory, and a task commits that list twice a second. So a power cut
loses at most the last second (WAL with synchronous=FULL), and kill -9 nothing that was committed. When the disk is
full, storing stops and is retried; the newest samples up to the bound survive in memory, the rest is counted as lost.

Not here: what the samples mean, calibration (applied on read, `calibration`), export (`export`).
"""

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from meter_bridge.timing.anchor import Anchor
from meter_bridge.trace.records import StoredEvent, StoredSample, pack_power, sample_sum
from shared.files.database import Database
from shared.files.row_sums import SummedTable
from shared.files.sqlite import open_database
from shared.kernel.clock import monotonic_ns, utc_ns
from shared.kernel.errors import DataError, StorageError
from shared.kernel.records import Instrument
from shared.service.background import BackgroundTasks
from shared.service.health import HealthRegistry

log = logging.getLogger(__name__)

BATCH_S = 0.5
RETRY_S = 2.0
PENDING_LIMIT = 20_000
"""Samples held in memory while the disk refuses them: over half an hour at 10 Hz."""

SUMMED = (
    SummedTable("instrument", ("id", "record")),
    SummedTable("anchor", ("id", "boot_id", "utc_minus_mono_ns", "from_utc_ns")),
    SummedTable("stream", ("id", "instrument_id", "started_utc_ns")),
    SummedTable("event", ("id", "utc_ns", "mono_ns", "kind", "count", "detail")),
)
"""What is few and explains the samples. The samples' own checksums are filled in here and checked on reading."""
MIGRATIONS = (
    """
    CREATE TABLE instrument (id INTEGER PRIMARY KEY, record TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE anchor (
        id INTEGER PRIMARY KEY, boot_id TEXT NOT NULL, utc_minus_mono_ns INTEGER NOT NULL, from_utc_ns INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE stream (
        id INTEGER PRIMARY KEY, instrument_id INTEGER NOT NULL REFERENCES instrument, started_utc_ns INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE sample (
        id INTEGER PRIMARY KEY, utc_ns INTEGER NOT NULL, mono_ns INTEGER NOT NULL, arrival_mono_ns INTEGER NOT NULL,
        stream_id INTEGER NOT NULL REFERENCES stream, anchor_id INTEGER NOT NULL REFERENCES anchor,
        seq INTEGER, device_ms INTEGER, power_w BLOB NOT NULL, extra BLOB, frequency_hz REAL, register_wh BLOB
    ) STRICT;
    CREATE INDEX sample_by_time ON sample (utc_ns);
    CREATE UNIQUE INDEX sample_once ON sample (stream_id, seq, device_ms) WHERE seq IS NOT NULL;
    CREATE TABLE event (
        id INTEGER PRIMARY KEY, utc_ns INTEGER NOT NULL, mono_ns INTEGER NOT NULL, kind TEXT NOT NULL,
        count INTEGER NOT NULL, detail TEXT NOT NULL
    ) STRICT;
    CREATE INDEX event_by_time ON event (utc_ns);
    """,
    # Rows carry checksums. Samples of before have none; a trace is far too large to give them one now.
    f"""
    {" ".join(table.stamp() for table in SUMMED)}
    ALTER TABLE sample ADD COLUMN row_sum INTEGER;
    CREATE TABLE summed (from_id INTEGER NOT NULL) STRICT;
    INSERT INTO summed SELECT coalesce(max(id), 0) + 1 FROM sample;
    """,
)
NAME = "the trace"
CURE = (
    "stop the bridge, then bring the state folder back from a copy (epi-backup restore), or move the file and what"
    " begins with its name away: a new trace begins then"
)
_INSERT_SAMPLE = (
    "INSERT OR IGNORE INTO sample (utc_ns, mono_ns, arrival_mono_ns, stream_id, anchor_id, seq, device_ms, power_w,"
    " extra, frequency_hz, register_wh, row_sum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_EVENT = "INSERT INTO event (utc_ns, mono_ns, kind, count, detail) VALUES (?, ?, ?, ?, ?)"


class TraceStore:
    """The one writer of the trace database."""

    def __init__(self, db: Database, path: Path, health: HealthRegistry) -> None:
        self.path = path
        self._db = db
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._owners: list[tuple[str, tuple[Any, ...]]] = []
        self._samples: deque[StoredSample] = deque()
        self._events: deque[StoredEvent] = deque()
        self._next_ids = {"instrument": 1, "anchor": 1, "stream": 1}
        self._instruments: dict[str, int] = {}
        self._background = BackgroundTasks(health)
        self._problem: str | None = None
        self.lost = 0

    @classmethod
    async def open(cls, path: Path, health: HealthRegistry | None = None) -> "TraceStore":
        """Open or make the database at `path` and start the writer, whose death would be reported to `health`."""
        db = await open_database(path, MIGRATIONS, name=NAME, cure=CURE, summed=SUMMED, indexes_checked=True)
        store = cls(db, path, health or HealthRegistry())

        def known(db: sqlite3.Connection) -> None:
            for table in store._next_ids:
                row = db.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()
                store._next_ids[table] = int(row[0])
            store._instruments = {row["record"]: row["id"] for row in db.execute("SELECT id, record FROM instrument")}

        try:
            await store._db.read(known)
        except BaseException:
            await store._db.close()
            raise
        store._background.start("the writer of the trace", store._write)
        return store

    @property
    def problem(self) -> str | None:
        """Why nothing is stored at the moment; None while storing."""
        return self._problem

    def instrument_id(self, instrument: Instrument) -> int:
        """Return the id of an instrument record, which is stored once."""
        record = instrument.model_dump_json()
        if record not in self._instruments:
            self._instruments[record] = self._own("instrument", "(id, record) VALUES (?, ?)", record)
        return self._instruments[record]

    def new_anchor(self, anchor: Anchor, from_utc_ns: int) -> int:
        """Return the id of a new anchor."""
        return self._own(
            "anchor", "(id, boot_id, utc_minus_mono_ns, from_utc_ns) VALUES (?, ?, ?, ?)",
            anchor.boot_id, anchor.utc_minus_mono_ns, from_utc_ns,
        )  # fmt: skip

    def new_stream(self, instrument_id: int, started_utc_ns: int) -> int:
        """Return the id of a new stream: frames of one device clock that was not reset in between."""
        columns = "(id, instrument_id, started_utc_ns) VALUES (?, ?, ?)"
        return self._own("stream", columns, instrument_id, started_utc_ns)

    def _own(self, table: str, columns: str, *values: Any) -> int:
        new = self._next_ids[table]
        self._next_ids[table] += 1
        self._owners.append((f"INSERT INTO {table} {columns}", (new, *values)))
        return new

    def put(self, sample: StoredSample) -> None:
        """Take a sample; it is on disk within `BATCH_S` or after `flush`."""
        self._samples.append(sample)
        self._bound()
        self._wake.set()

    def put_event(self, event: StoredEvent) -> None:
        """Take an event; like `put`."""
        self._events.append(event)
        self._bound()
        self._wake.set()

    def _bound(self) -> None:
        while len(self._samples) > PENDING_LIMIT:
            self._samples.popleft()
            self.lost += 1
        while len(self._events) > PENDING_LIMIT:
            self._events.popleft()

    async def flush(self) -> None:
        """Commit everything taken so far; a refusing disk leaves it in memory and in `problem`."""
        # Shielded: a caller that goes away must not tear a transaction.
        await asyncio.shield(self._flush())

    async def _flush(self) -> None:
        async with self._lock:
            await self._commit()

    async def close(self) -> None:
        """Commit what is left and close."""
        async with self._lock:
            # With the lock held the writer is between two batches, never inside one.
            await self._background.stop()
        await self.flush()
        await self._db.close()

    async def exclusively(self, statements: Iterable[tuple[str, tuple[Any, ...]]]) -> list[int]:
        """Run statements of maintenance in one transaction, between two batches; return the rows each changed."""
        async with self._lock:
            await self._commit()
            return await self._db.write(lambda db: [db.execute(sql, values).rowcount for sql, values in statements])

    async def give_space_back(self) -> None:
        """Let the file be no larger than what is in it."""

        def shrink(db: sqlite3.Connection) -> None:
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

        async with self._lock:
            await self._commit()
            await self._db.maintain(shrink)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(BATCH_S if self._problem is None else RETRY_S)
            self._wake.clear()
            await self.flush()
            if self._samples or self._events:
                self._wake.set()

    async def _commit(self) -> None:
        owners, samples, events = list(self._owners), list(self._samples), list(self._events)
        if not (owners or samples or events):
            return
        self._samples.clear()
        self._events.clear()
        sample_rows, event_rows = [_sample_row(sample) for sample in samples], [_event_row(event) for event in events]

        def change(db: sqlite3.Connection) -> None:
            for sql, values in owners:
                db.execute(sql, values)
            db.executemany(_INSERT_SAMPLE, sample_rows)
            db.executemany(_INSERT_EVENT, event_rows)

        try:
            await self._db.write(change)
        except (StorageError, DataError, sqlite3.Error) as error:
            self._samples.extendleft(reversed(samples))
            self._events.extendleft(reversed(events))
            self._bound()
            self._refused(error)
        else:
            del self._owners[: len(owners)]
            self._accepted()

    def _refused(self, error: Exception) -> None:
        reason = f"the trace is not being stored: {error}"
        if self._problem is None:
            log.error("%s (%s)", reason, self.path)
            self.put_event(StoredEvent(utc_ns(), monotonic_ns(), "storage_failed", detail=str(error)))
        self._problem = reason

    def _accepted(self) -> None:
        if self._problem is None:
            return
        self._problem = None
        log.warning("the trace is stored again (%s), %d samples were lost", self.path, self.lost)
        self.put_event(
            StoredEvent(utc_ns(), monotonic_ns(), "storage_recovered", detail=f"{self.lost} samples lost so far")
        )


def _sample_row(sample: StoredSample) -> tuple[Any, ...]:
    power, register = pack_power(sample.power_w), None if sample.register_wh is None else pack_power(sample.register_wh)
    return (
        sample.utc_ns, sample.mono_ns, sample.arrival_mono_ns, sample.stream_id, sample.anchor_id, sample.seq,
        sample.device_ms, power, sample.extra, sample.frequency_hz, register,
        sample_sum(sample.utc_ns, sample.stream_id, power, register),
    )  # fmt: skip


def _event_row(event: StoredEvent) -> tuple[Any, ...]:
    return (event.utc_ns, event.mono_ns, event.kind, event.count, event.detail)
