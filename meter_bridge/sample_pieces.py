"""A window of any length in pieces, calibration applied: each piece is computed alone, in bounded memory.

What describes the whole window (instrument at its mean power, energy register, events) needs sums over all pieces. They
travel in the cursor from piece to piece, so the bridge keeps nothing between two requests: a piece can be asked for
again, also after a restart. The pieces are of one snapshot: what arrives later is in none of them.

Not here: HTTP (`app`), queries (`trace`).
"""

import asyncio
import base64
import binascii
import logging
import math
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, ValidationError

from meter_bridge.instrument.calibration import CalibrationRecord
from meter_bridge.instrument.description import InstrumentSettings, with_calibration
from meter_bridge.trace.reader import TraceReader
from meter_bridge.trace.records import StoredEvent, unpack_power
from meter_bridge.trace.straight import (
    StraightSample,
    StraightWindow,
    newest_id,
    read_only,
    straight_page,
    straight_window,
)
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import Instrument, NodeName, Record
from shared.wire.meter_api import SamplePiece, TraceEvent, WindowSummary

log = logging.getLogger(__name__)

PIECE_SAMPLES = 6000
"""Ten minutes at 10 Hz: some milliseconds of work at a time, so that the loop is there for the meter's next line."""
LONGEST_PIECE_SAMPLES = 20_000
_J_PER_WH = 3600.0
_WINDOWS_KEPT = 4


_Int = Annotated[int, Field(ge=-(2**62), le=2**62)]
_Sum = Annotated[float, Field(ge=-1e300, le=1e300)]


class _RegisterReading(Record):
    """What the energy register showed with one sample, in watt-hours; null where a channel sent none."""

    stream_id: int
    register_wh: tuple[float | None, ...] | None


class _Cursor(Record):
    """Where a piece ended, and the sums over all pieces before the next."""

    start_utc_ns: int
    end_utc_ns: int
    calibration: str | None = Field(description="id of the record that is applied; null: none")
    last_id: _Int
    straight_ns: _Int
    id: _Int
    utc_ns: _Int = -1
    n_samples: int = Field(default=0, ge=0)
    n_damaged: int = Field(default=0, ge=0)
    damaged_utc_ns: _Int = 0
    sums_w: tuple[tuple[_Sum, ...], ...] = Field(description="of each channel, terms whose sum is exact")
    counts: tuple[int, ...]
    first: _RegisterReading | None = None
    last: _RegisterReading | None = None
    newest_stream: _Int | None = None
    first_emulated_stream: _Int | None = None

    def encode(self) -> str:
        """Return the cursor as it is sent."""
        return base64.urlsafe_b64encode(self.model_dump_json().encode()).decode()

    @classmethod
    def decode(cls, text: str) -> "_Cursor":
        """Read a cursor.

        Raises:
            ConfigurationError: it is none of ours.
        """
        try:
            return cls.model_validate_json(base64.urlsafe_b64decode(text.encode()))
        except (binascii.Error, ValidationError, ValueError) as error:
            raise ConfigurationError("not a cursor of this bridge", where="cursor") from error


@dataclass(frozen=True)
class PieceRequest:
    """The window, the calibration to apply, where to go on, and the most samples of one piece."""

    start_utc_ns: int
    end_utc_ns: int
    calibration: CalibrationRecord | None
    cursor: str | None = None
    limit: int = PIECE_SAMPLES


class PieceBuilder:
    """Makes the pieces of one bridge's windows; `known` is what its settings say of the instrument."""

    def __init__(self, path: Path, reader: TraceReader, nodes: tuple[NodeName, ...], known: InstrumentSettings) -> None:
        self._path = path
        self._reader = reader
        self._nodes = nodes
        self._known = known
        self._windows: dict[tuple[int, int, int], StraightWindow] = {}
        self._windows_lock = threading.Lock()

    def calibration_of(self, cursor: str) -> str | None:
        """Return the id of the calibration that a window was begun with, None for raw.

        Raises:
            ConfigurationError: it is none of our cursors.
        """
        return _Cursor.decode(cursor).calibration

    async def piece(self, asked: PieceRequest, *, fallback: Instrument) -> SamplePiece:
        """Return one piece; `fallback` measures an empty window.

        Raises:
            ConfigurationError: the cursor belongs to another window or another set of channels.
        """
        # In a thread: whatever the disk does, the loop is there for the next line of the meter.
        cursor, utc_ns, power_w, more = await asyncio.to_thread(self._next, asked)
        summary = None if more else await self._summary(cursor, asked.calibration, fallback)
        return SamplePiece(
            utc_ns=tuple(utc_ns), power_w=power_w, next=cursor.encode() if more else None, window=summary
        )

    def _next(self, asked: PieceRequest) -> tuple[_Cursor, list[int], dict[NodeName, tuple[float | None, ...]], bool]:
        with read_only(self._path) as db:
            cursor = self._begin(asked, newest_id(db)) if asked.cursor is None else self._go_on(asked)
            key = (asked.start_utc_ns, asked.end_utc_ns, cursor.last_id)
            window = self._window(db, key)
            page = straight_page(db, window, (cursor.straight_ns, cursor.id), asked.limit + 1)
            samples, more = page[: asked.limit], len(page) > asked.limit
            damaged = [sample for sample in samples if not sample.is_sound]
            # A frame of another number of channels was measured before the settings were changed.
            own = [sample for sample in samples if sample.is_sound and len(sample.power) == 8 * len(self._nodes)]
            streams = self._streams(db, cursor, {sample.stream_id for sample in own})
        if damaged:
            log.warning("%d samples of the trace are damaged on the disk, first: %d", len(damaged), damaged[0].id)
        utc_ns = _strictly_ascending([sample.straight_ns for sample in own], cursor.utc_ns)
        columns = _columns(own, self._nodes, asked.calibration)
        valid = [[value for value in column if value is not None] for column in columns]
        cursor = cursor.model_copy(
            update={
                **streams,
                "straight_ns": samples[-1].straight_ns if samples else cursor.straight_ns,
                "id": samples[-1].id if samples else cursor.id,
                "utc_ns": utc_ns[-1] if utc_ns else cursor.utc_ns,
                "n_samples": cursor.n_samples + len(own),
                "n_damaged": cursor.n_damaged + len(damaged),
                "damaged_utc_ns": damaged[0].straight_ns if damaged and not cursor.n_damaged else cursor.damaged_utc_ns,
                "sums_w": tuple(exact_sum((*before, *new)) for before, new in zip(cursor.sums_w, valid, strict=True)),
                "counts": tuple(before + len(new) for before, new in zip(cursor.counts, valid, strict=True)),
                "first": cursor.first or (_register(own[0]) if own else None),
                "last": _register(own[-1]) if own else cursor.last,
            }
        )
        return cursor, utc_ns, dict(zip(self._nodes, columns, strict=True)), more

    def _begin(self, asked: PieceRequest, last_id: int) -> _Cursor:
        return _Cursor(
            start_utc_ns=asked.start_utc_ns, end_utc_ns=asked.end_utc_ns,
            calibration=None if asked.calibration is None else asked.calibration.id,
            last_id=last_id, straight_ns=-(2**62), id=-1,
            sums_w=((),) * len(self._nodes), counts=(0,) * len(self._nodes),
        )  # fmt: skip

    def _go_on(self, asked: PieceRequest) -> _Cursor:
        cursor = _Cursor.decode(asked.cursor or "")
        if (cursor.start_utc_ns, cursor.end_utc_ns) != (asked.start_utc_ns, asked.end_utc_ns):
            raise ConfigurationError("the cursor belongs to another window", where="cursor")
        if not len(cursor.sums_w) == len(cursor.counts) == len(self._nodes):
            raise ConfigurationError(
                "the bridge's channels were changed since the window was begun", where="cursor", hint="begin it again"
            )
        return cursor

    def _window(self, db: sqlite3.Connection, key: tuple[int, int, int]) -> StraightWindow:
        """Return the anchors of a window; the newest windows are remembered, others are found again."""
        with self._windows_lock:
            window = self._windows.pop(key, None)
        window = window or straight_window(db, *key)
        with self._windows_lock:
            self._windows[key] = window
            while len(self._windows) > _WINDOWS_KEPT:
                del self._windows[next(iter(self._windows))]
        return window

    @staticmethod
    def _streams(db: sqlite3.Connection, cursor: _Cursor, streams: set[int]) -> dict[str, int | None]:
        """Return the newest stream so far, and the first emulated one: one of them says what measured the window."""
        newest, emulated = cursor.newest_stream, cursor.first_emulated_stream
        for stream in sorted(streams):
            newest = stream if newest is None else max(newest, stream)
            record = db.execute(
                "SELECT record FROM instrument JOIN stream ON stream.instrument_id = instrument.id WHERE stream.id = ?",
                (stream,),
            ).fetchone()
            if Instrument.model_validate_json(record[0]).emulated:
                emulated = stream if emulated is None else min(emulated, stream)
        return {"newest_stream": newest, "first_emulated_stream": emulated}

    async def _summary(
        self, cursor: _Cursor, calibration: CalibrationRecord | None, fallback: Instrument
    ) -> WindowSummary:
        # What is emulated in part is called emulated.
        stream = cursor.newest_stream if cursor.first_emulated_stream is None else cursor.first_emulated_stream
        instrument = (None if stream is None else await self._reader.instrument_of(stream)) or fallback
        events = await self._reader.events(cursor.start_utc_ns, cursor.end_utc_ns)
        sums = zip(self._nodes, cursor.sums_w, cursor.counts, strict=True)
        means = {node: math.fsum(terms) / count if count else 0.0 for node, terms, count in sums}
        return WindowSummary(
            instrument=with_calibration(instrument, self._known, calibration, means),
            nodes=self._nodes,
            n_samples=cursor.n_samples,
            events=(*(trace_event(event) for event in events), *_damage(cursor)),
            energy_register_j=self._register_j(cursor),
        )

    def _register_j(self, cursor: _Cursor) -> dict[NodeName, float | None] | None:
        """Return the register's energy between first and last sample; None unless both have it, in one stream."""
        first, last = cursor.first, cursor.last
        if cursor.n_samples < 2 or first is None or last is None or first.stream_id != last.stream_id:
            return None
        if first.register_wh is None or last.register_wh is None:
            return None
        spans = zip(self._nodes, first.register_wh, last.register_wh, strict=True)
        return {node: None if begin is None or end is None else (end - begin) * _J_PER_WH for node, begin, end in spans}


def _damage(cursor: _Cursor) -> tuple[TraceEvent, ...]:
    """Return the event that says that samples of the window were left out, since the disk damaged them."""
    if not cursor.n_damaged:
        return ()
    detail = "samples left out: the disk gives others back than were written"
    return (TraceEvent(utc_ns=cursor.damaged_utc_ns, kind="damaged", count=cursor.n_damaged, detail=detail),)


def trace_event(event: StoredEvent) -> TraceEvent:
    """Return a stored event as the API has it."""
    return TraceEvent(utc_ns=event.utc_ns, kind=event.kind, count=event.count, detail=event.detail)


def exact_sum(values: Sequence[float]) -> tuple[float, ...]:
    """Return few terms whose sum is exactly that of the values: `math.fsum` of them is `math.fsum` of all values."""
    terms: list[float] = []
    while rest := math.fsum([*values, *(-term for term in terms)]):
        terms.append(rest)
    return tuple(terms)


def _columns(
    samples: Sequence[StraightSample], nodes: tuple[NodeName, ...], calibration: CalibrationRecord | None
) -> list[tuple[float | None, ...]]:
    """Return the corrected watts of each channel, null where it sent no valid value."""
    raw = np.frombuffer(b"".join(sample.power for sample in samples), dtype="<f8").reshape(len(samples), len(nodes))
    lines: Mapping[str, tuple[float, float]] = (
        {} if calibration is None else {line.node: (line.gain, line.offset_w) for line in calibration.channels}
    )
    columns = []
    for channel, node in enumerate(nodes):
        watts = raw[:, channel]
        if node in lines:
            gain, offset_w = lines[node]
            watts = gain * watts + offset_w
        columns.append(tuple(None if value != value else value for value in watts.tolist()))
    return columns


def _register(sample: StraightSample) -> _RegisterReading:
    read = None if sample.register is None else unpack_power(sample.register)
    return _RegisterReading(
        stream_id=sample.stream_id,
        register_wh=None if read is None else tuple(None if value != value else value for value in read),
    )


def _strictly_ascending(times: list[int], last: int) -> list[int]:
    """Move equal times apart by a nanosecond, also over the border of a piece: two streams may meet in one moment."""
    for index, at in enumerate(times):
        times[index] = last = max(at, last + 1)
    return times
