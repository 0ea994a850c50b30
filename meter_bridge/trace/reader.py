"""Reads the trace database through a connection of its own, so that a long query never delays the writer.

Not here: calibration and the answer records of the API (`answers`).
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import aiosqlite

from meter_bridge.trace.records import StoredEvent, StoredSample, unpack_power
from shared.kernel.records import Instrument

_COLUMNS = (
    "utc_ns, mono_ns, arrival_mono_ns, stream_id, anchor_id, seq, device_ms, power_w, extra, frequency_hz, register_wh"
)


@dataclass(frozen=True, slots=True)
class StoredAnchor:
    """UTC minus monotonic, for one boot of the host, from a UTC time on."""

    boot_id: str
    utc_minus_mono_ns: int


class TraceReader:
    """Queries; every window is half-open, [start, end) in UTC nanoseconds."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db

    @classmethod
    async def open(cls, path: Path) -> "TraceReader":
        """Open the database read-only; the writer has made it."""
        db = await aiosqlite.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        db.row_factory = aiosqlite.Row
        await db.execute("PRAGMA busy_timeout = 5000")
        return cls(db)

    async def close(self) -> None:
        """Close the connection."""
        await self._db.close()

    async def samples(self, start_utc_ns: int, end_utc_ns: int) -> list[StoredSample]:
        """Return the samples of a window in the order of their arrival."""
        rows = await self._db.execute_fetchall(
            f"SELECT {_COLUMNS} FROM sample WHERE utc_ns >= ? AND utc_ns < ? ORDER BY id", (start_utc_ns, end_utc_ns)
        )
        # In a thread: a long window must not make the loop late for the next line of the meter.
        return await asyncio.to_thread(lambda: [_sample(row) for row in rows])

    async def last(self) -> StoredSample | None:
        """Return the newest sample."""
        async with self._db.execute(f"SELECT {_COLUMNS} FROM sample ORDER BY id DESC LIMIT 1") as rows:
            row = await rows.fetchone()
        return None if row is None else _sample(row)

    async def tail(self, stream_id: int, limit: int) -> tuple[StoredSample, ...]:
        """Return the newest samples of a stream, oldest first."""
        async with self._db.execute(
            f"SELECT {_COLUMNS} FROM sample WHERE stream_id = ? ORDER BY id DESC LIMIT ?", (stream_id, limit)
        ) as rows:
            return tuple(reversed([_sample(row) async for row in rows]))

    async def count(self) -> int:
        """Return the number of samples."""
        async with self._db.execute("SELECT count(*) FROM sample") as rows:
            row = await rows.fetchone()
        return int(row[0]) if row else 0

    async def anchors(self) -> dict[int, StoredAnchor]:
        """Return all anchors by id."""
        async with self._db.execute("SELECT id, boot_id, utc_minus_mono_ns FROM anchor") as rows:
            return {row["id"]: StoredAnchor(row["boot_id"], row["utc_minus_mono_ns"]) async for row in rows}

    async def instrument_of(self, stream_id: int) -> Instrument | None:
        """Return what measured a stream."""
        async with self._db.execute(
            "SELECT record FROM instrument JOIN stream ON stream.instrument_id = instrument.id WHERE stream.id = ?",
            (stream_id,),
        ) as rows:
            row = await rows.fetchone()
        return None if row is None else Instrument.model_validate_json(row["record"])

    async def events(self, start_utc_ns: int, end_utc_ns: int, limit: int = 10_000) -> list[StoredEvent]:
        """Return the events of a window, oldest first."""
        async with self._db.execute(
            "SELECT utc_ns, mono_ns, kind, count, detail FROM event WHERE utc_ns >= ? AND utc_ns < ?"
            " ORDER BY id LIMIT ?",
            (start_utc_ns, end_utc_ns, limit),
        ) as rows:
            return [StoredEvent(*row) async for row in rows]


def _sample(row: aiosqlite.Row) -> StoredSample:
    return StoredSample(
        utc_ns=row["utc_ns"], mono_ns=row["mono_ns"], arrival_mono_ns=row["arrival_mono_ns"],
        stream_id=row["stream_id"], anchor_id=row["anchor_id"], power_w=unpack_power(row["power_w"]), seq=row["seq"],
        device_ms=row["device_ms"], extra=row["extra"], frequency_hz=row["frequency_hz"],
        register_wh=None if row["register_wh"] is None else unpack_power(row["register_wh"]),
    )  # fmt: skip
