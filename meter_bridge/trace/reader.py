"""Reads the trace database through a connection of its own, so that a long query never delays the writer.

Not here: calibration and the answer records of the API (`answers`).
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from meter_bridge.trace.records import StoredEvent, StoredSample, sample_sum, unpack_power
from meter_bridge.trace.store import CURE, NAME
from shared.files.database import Database
from shared.files.sqlite import open_read_only
from shared.kernel.records import Instrument

_COLUMNS = (
    "id, utc_ns, mono_ns, arrival_mono_ns, stream_id, anchor_id, seq, device_ms, power_w, extra, frequency_hz,"
    " register_wh, row_sum"
)


@dataclass(frozen=True, slots=True)
class StoredAnchor:
    """UTC minus monotonic, for one boot of the host, from a UTC time on."""

    boot_id: str
    utc_minus_mono_ns: int


class TraceReader:
    """Queries; every window is half-open, [start, end) in UTC nanoseconds."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @classmethod
    async def open(cls, path: Path) -> "TraceReader":
        """Open the database read-only; the writer has made it."""
        return cls(await open_read_only(path, name=NAME, cure=CURE))

    async def close(self) -> None:
        """Close the connection."""
        await self._db.close()

    async def _all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        return await self._db.read(lambda db: db.execute(sql, values).fetchall())

    async def samples(self, start_utc_ns: int, end_utc_ns: int) -> list[StoredSample]:
        """Return the samples of a window in the order of their arrival, without those that the disk has damaged."""
        sql = f"SELECT {_COLUMNS} FROM sample WHERE utc_ns >= ? AND utc_ns < ? ORDER BY id"

        # On the database's thread: a long window must not make the loop late for the next line of the meter.
        def ask(db: sqlite3.Connection) -> list[StoredSample]:
            summed_from = summed_from_id(db)
            rows = db.execute(sql, (start_utc_ns, end_utc_ns))
            return [_sample(row) for row in rows if row["id"] < summed_from or row["row_sum"] == _sum_of(row)]

        return await self._db.read(ask)

    async def last(self) -> StoredSample | None:
        """Return the newest sample."""
        rows = await self._all(f"SELECT {_COLUMNS} FROM sample ORDER BY id DESC LIMIT 1")
        return _sample(rows[0]) if rows else None

    async def tail(self, stream_id: int, limit: int) -> tuple[StoredSample, ...]:
        """Return the newest samples of a stream, oldest first."""
        rows = await self._all(
            f"SELECT {_COLUMNS} FROM sample WHERE stream_id = ? ORDER BY id DESC LIMIT ?", stream_id, limit
        )
        return tuple(reversed([_sample(row) for row in rows]))

    async def count(self) -> int:
        """Return the number of samples."""
        (row,) = await self._all("SELECT count(*) FROM sample")
        return int(row[0])

    async def anchors(self) -> dict[int, StoredAnchor]:
        """Return all anchors by id."""
        rows = await self._all("SELECT id, boot_id, utc_minus_mono_ns FROM anchor")
        return {row["id"]: StoredAnchor(row["boot_id"], row["utc_minus_mono_ns"]) for row in rows}

    async def instrument_of(self, stream_id: int) -> Instrument | None:
        """Return what measured a stream."""
        rows = await self._all(
            "SELECT record FROM instrument JOIN stream ON stream.instrument_id = instrument.id WHERE stream.id = ?",
            stream_id,
        )
        return Instrument.model_validate_json(rows[0]["record"]) if rows else None

    async def events(self, start_utc_ns: int, end_utc_ns: int, limit: int = 10_000) -> list[StoredEvent]:
        """Return the events of a window, oldest first."""
        rows = await self._all(
            "SELECT utc_ns, mono_ns, kind, count, detail FROM event WHERE utc_ns >= ? AND utc_ns < ?"
            " ORDER BY id LIMIT ?",
            start_utc_ns, end_utc_ns, limit,
        )  # fmt: skip
        return [StoredEvent(*row) for row in rows]


def summed_from_id(db: sqlite3.Connection) -> int:
    """Return the id from which on samples carry a checksum; those before are of an earlier version."""
    return int(db.execute("SELECT from_id FROM summed").fetchone()[0])


def _sum_of(row: sqlite3.Row) -> int:
    return sample_sum(row["utc_ns"], row["stream_id"], row["power_w"], row["register_wh"])


def _sample(row: sqlite3.Row) -> StoredSample:
    return StoredSample(
        utc_ns=row["utc_ns"], mono_ns=row["mono_ns"], arrival_mono_ns=row["arrival_mono_ns"],
        stream_id=row["stream_id"], anchor_id=row["anchor_id"], power_w=unpack_power(row["power_w"]), seq=row["seq"],
        device_ms=row["device_ms"], extra=row["extra"], frequency_hz=row["frequency_hz"],
        register_wh=None if row["register_wh"] is None else unpack_power(row["register_wh"]),
    )  # fmt: skip
