"""Recordings: what a source sent, with arrival times, in a file that can be replayed; and traces read as recordings.

A recording is gzip'd JSON lines: a head, then one frame a line with `a`, nanoseconds since the first arrival.
"""

import gzip
import itertools
import json
import math
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Annotated, Any

from pydantic import Field, TypeAdapter

from meter_bridge.protocol.frames import NAN, Frame
from meter_bridge.protocol.limits import FASTEST_HZ, SLOWEST_HZ, fault_of
from meter_bridge.trace.records import unpack_extra, unpack_power
from shared.files.trace_csv import read_rows
from shared.kernel.defects import reason_of
from shared.kernel.errors import DataError
from shared.kernel.records import Instrument, NodeName
from shared.kernel.regular_files import open_regular

FORMAT = 1
_LONGEST_LINE = 64 << 10
_LONGEST_NS = 100 * 365 * 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """A frame and its arrival, in nanoseconds since the first."""

    offset_ns: int
    frame: Frame


@dataclass(frozen=True, slots=True)
class RecordingHead:
    """What the recording is of."""

    nodes: Annotated[tuple[NodeName, ...], Field(min_length=1, max_length=64)]
    rate_hz: Annotated[float, Field(ge=SLOWEST_HZ, le=FASTEST_HZ)]
    device: Annotated[str, Field(max_length=256)]
    emulated: bool
    measurement_point: str | None = None
    firmware: str | None = None


_HEAD = TypeAdapter(RecordingHead)
_FRAME = TypeAdapter(Frame)


class RecordingWriter:
    """Writes a recording; use as a context manager."""

    def __init__(self, path: Path, head: RecordingHead) -> None:
        self._file: IO[str] = gzip.open(path, "wt", encoding="utf-8", compresslevel=6)  # noqa: SIM115 - closed in __exit__
        self._first_ns: int | None = None
        self.frames = 0
        self._file.write(json.dumps({"epi_recording": FORMAT, **asdict(head)}) + "\n")

    def __enter__(self) -> "RecordingWriter":
        """Return the writer."""
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the file."""
        self._file.close()

    def add(self, frame: Frame, arrival_mono_ns: int) -> None:
        """Append one frame."""
        self._first_ns = arrival_mono_ns if self._first_ns is None else self._first_ns
        row: dict[str, Any] = {"a": arrival_mono_ns - self._first_ns}
        for name, value in asdict(frame).items():
            if isinstance(value, tuple):
                row[name] = [None if math.isnan(entry) else entry for entry in value]
            elif value is not None:
                row[name] = value
        self._file.write(json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n")
        self.frames += 1


def read_head(path: Path) -> RecordingHead:
    """Return the head of a recording, or what can be said of a trace CSV or a trace database.

    Raises:
        DataError: the file is none of them.
    """
    kind = _kind(path)
    if kind == "sqlite":
        return _sqlite_head(path)
    if kind == "csv":
        return _csv_head(path)
    try:
        return _parse_head(next(_lines(path), ""), path)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"damaged recording: {error}", where=str(path)) from error


def read_recording(path: Path) -> Iterator[RecordedFrame]:
    """Yield the frames of a recording, a trace CSV or a trace database, in order.

    Raises:
        DataError: the file is none of them, or is damaged; frames before the damage are yielded.
    """
    kind = _kind(path)
    if kind == "sqlite":
        yield from _sqlite_frames(path)
    elif kind == "csv":
        yield from _csv_frames(path)
    else:
        yield from _recorded_frames(path)


def _kind(path: Path) -> str:
    try:
        with open_regular(path) as file:
            start = file.read(16)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if start.startswith(b"SQLite format 3"):
        return "sqlite"
    if start[:2] == b"\x1f\x8b":
        return "recording"
    if start.startswith(b"timestamp,"):
        return "csv"
    raise DataError(
        "neither a recording, nor a trace CSV, nor a trace database", where=str(path),
        hint="make one with `epi meter record`",
    )  # fmt: skip


def _parse_head(line: str, path: Path) -> RecordingHead:
    try:
        fields = json.loads(line)
        if fields.pop("epi_recording") != FORMAT:
            raise ValueError("unknown format")
        return _HEAD.validate_python(fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"not a recording: {reason_of(error)}", where=str(path)) from error


def _recorded_frames(path: Path) -> Iterator[RecordedFrame]:
    try:
        lines = _lines(path)
        head, last_ns = _parse_head(next(lines, ""), path), 0
        for line in lines:
            row = json.loads(line)
            offset_ns = row.pop("a")
            if not isinstance(offset_ns, int) or not last_ns <= offset_ns < _LONGEST_NS:
                raise ValueError(f"a frame at {offset_ns!r:.30} ns")
            columns = {
                name: tuple(NAN if entry is None else entry for entry in value) if isinstance(value, list) else value
                for name, value in row.items()
            }
            frame = _FRAME.validate_python(columns)
            if len(frame.power_w) != len(head.nodes):
                raise ValueError(f"a frame of {len(frame.power_w)} channels")
            if (fault := fault_of(frame)) is not None:
                raise ValueError(fault)
            yield RecordedFrame(offset_ns, frame)
            last_ns = offset_ns
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"damaged recording: {reason_of(error)}", where=str(path)) from error


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a recording; one without end, a few packed bytes can be gigabytes, is not read whole."""
    with open_regular(path) as packed, gzip.open(packed, "rt", encoding="utf-8") as file:
        while line := file.readline(_LONGEST_LINE + 1):
            if len(line) > _LONGEST_LINE:
                raise ValueError(f"a line of more than {_LONGEST_LINE} characters")
            yield line


def _csv_head(path: Path) -> RecordingHead:
    nodes: dict[str, None] = {}
    first_ns = last_ns = moments = 0
    for at_ns, node, _ in read_rows(path):
        nodes.setdefault(node)
        if not moments:
            first_ns = last_ns = at_ns
            moments = 1
        elif at_ns != last_ns:
            last_ns = at_ns
            moments += 1
    span_s = (last_ns - first_ns) / 1e9 if moments > 1 else 1.0
    rate_hz = (moments - 1) / span_s if span_s > 0 else 0.0
    return RecordingHead(tuple(nodes), min(max(rate_hz, SLOWEST_HZ), FASTEST_HZ), path.name, emulated=False)


def _csv_frames(path: Path) -> Iterator[RecordedFrame]:
    """Yield a frame for each moment of a trace CSV."""
    nodes = _csv_head(path).nodes
    first_ns: int | None = None
    moments = itertools.groupby(read_rows(path), key=lambda row: row[0])
    for number, (at_ns, rows) in enumerate(moments):
        first_ns = at_ns if first_ns is None else first_ns
        powers = {node: watts for _, node, watts in rows}
        frame = Frame(
            tuple(powers.get(node, NAN) for node in nodes), seq=number, device_ms=(at_ns - first_ns) // 1_000_000
        )
        yield RecordedFrame(at_ns - first_ns, frame)


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a trace database for reading; whatever is wrong with it, also inside the block, is a DataError."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            db.execute("PRAGMA trusted_schema = OFF")
            kinds = dict(db.execute("SELECT name, type FROM sqlite_schema WHERE sql NOT LIKE 'CREATE VIRTUAL%'"))
            if any(kinds.get(name) != "table" for name in ("sample", "stream", "instrument")):
                raise DataError("not a trace database", where=str(path))  # a view can compute without end
            yield db
    except (sqlite3.Error, ValueError, TypeError, struct.error) as error:
        raise DataError(f"not a trace database: {reason_of(error)}", where=str(path)) from error


def _sqlite_head(path: Path) -> RecordingHead:
    with _database(path) as db:
        record, power = db.execute(
            "SELECT record, power_w FROM sample JOIN stream ON stream.id = stream_id"
            " JOIN instrument ON instrument.id = instrument_id ORDER BY sample.id DESC LIMIT 1"
        ).fetchone() or (None, b"")
        if record is None:
            raise DataError("the trace is empty", where=str(path))
        instrument = Instrument.model_validate_json(record)
        nodes = tuple(f"node{channel + 1}" for channel in range(len(unpack_power(power))))
    return RecordingHead(
        nodes, instrument.sample_rate_hz or 1.0, instrument.name, instrument.emulated, instrument.measurement_point,
        instrument.firmware,
    )  # fmt: skip


def _sqlite_frames(path: Path) -> Iterator[RecordedFrame]:
    with _database(path) as db:
        first: int | None = None
        for utc_ns, seq, device_ms, power, extra, frequency, register in db.execute(
            "SELECT utc_ns, seq, device_ms, power_w, extra, frequency_hz, register_wh FROM sample ORDER BY id"
        ):
            first = utc_ns if first is None else first
            power_w = unpack_power(power)
            yield RecordedFrame(
                utc_ns - first,
                Frame(
                    power_w=power_w, seq=seq, device_ms=device_ms, frequency_hz=frequency,
                    energy_wh=None if register is None else unpack_power(register),
                    **unpack_extra(extra, len(power_w)),
                ),
            )  # fmt: skip
