"""Recordings and exports: what goes in comes out, damage is one clear error."""

import gzip
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from meter_bridge.cli.remote import moment_ns
from meter_bridge.export import export
from meter_bridge.protocol.frames import Frame
from meter_bridge.trace.recording import RecordedFrame, RecordingHead, RecordingWriter, read_head, read_recording
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.records import Instrument
from shared.wire.meter_api import SamplePiece, WindowSummary

HEAD = RecordingHead(("a", "b"), 10.0, "epi-meter", emulated=False, measurement_point="AC", firmware="1.2")


def frames() -> list[RecordedFrame]:
    return [
        RecordedFrame(number * 100_000_000, Frame((1 / 3 + number, math.nan), number, number * 100, (230.5, 231.5)))
        for number in range(50)
    ]


def write(path: Path) -> None:
    with RecordingWriter(path, HEAD) as writer:
        for recorded in frames():
            writer.add(recorded.frame, 77 + recorded.offset_ns)


TIMES = tuple(1_800_000_000_000_000_000 + number * 100_000_000 for number in range(20))
POWER_W = {"a": tuple(number / 3 for number in range(20)), "b": (None,) * 10 + (4.0,) * 10}


async def pieces(size: int = 7) -> AsyncIterator[SamplePiece]:
    for at in range(0, len(TIMES), size):
        own, last = slice(at, at + size), at + size >= len(TIMES)
        yield SamplePiece(
            utc_ns=TIMES[own], power_w={node: watts[own] for node, watts in POWER_W.items()},
            next=None if last else "more", window=SUMMARY if last else None,
        )  # fmt: skip


INSTRUMENT = Instrument(name="m", kind="emulated", emulated=True)
SUMMARY = WindowSummary(instrument=INSTRUMENT, nodes=("a", "b"), n_samples=len(TIMES))


def test_a_recording_comes_back_exactly(tmp_path: Path) -> None:
    write(tmp_path / "x.rec.gz")
    assert read_head(tmp_path / "x.rec.gz") == HEAD
    assert repr(list(read_recording(tmp_path / "x.rec.gz"))) == repr(frames())


def test_a_damaged_recording_gives_what_is_whole_and_one_error(tmp_path: Path) -> None:
    path = tmp_path / "x.rec.gz"
    write(path)
    path.write_bytes(path.read_bytes()[:-40])
    good = []
    with pytest.raises(DataError, match="damaged recording"):
        good.extend(read_recording(path))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "other.gz").write_bytes(gzip.compress(b'{"a":1}\n'))
    for name in ("empty", "other.gz", "none"):
        with pytest.raises(DataError):
            read_head(tmp_path / name)


async def test_an_exported_trace_can_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    assert await export(pieces(), path) == (30, SUMMARY)
    head = read_head(path)
    assert head.nodes == ("a", "b")
    assert head.rate_hz == pytest.approx(10)
    read = list(read_recording(path))
    assert [frame.offset_ns for frame in read] == pytest.approx([n * 100_000_000 for n in range(20)], abs=2000)
    assert read[3].frame.power_w[0] == 1.0
    assert math.isnan(read[3].frame.power_w[1])
    assert read[15].frame.power_w[1] == 4.0


async def test_parquet_holds_the_same_and_says_what_measured(tmp_path: Path) -> None:
    assert await export(pieces(), tmp_path / "t.parquet") == (30, SUMMARY)
    assert await export(pieces(20), tmp_path / "t.csv.gz") == (30, SUMMARY)
    table = pq.read_table(tmp_path / "t.parquet")
    rows = table.to_pylist()
    assert [row["watts"] for row in rows if row["node"] == "a"] == list(POWER_W["a"])
    assert table["timestamp"].cast("int64")[0].as_py() == TIMES[0]
    assert Instrument.model_validate_json(table.schema.metadata[b"epi_instrument"]) == INSTRUMENT
    lines = gzip.decompress((tmp_path / "t.csv.gz").read_bytes()).decode().splitlines()
    assert len(lines) == 31
    assert lines[1] == "2027-01-15T08:00:00.000000000Z,a,0.0"
    with pytest.raises(ConfigurationError, match="kind of file"):
        await export(pieces(), tmp_path / "t.xlsx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv.gz", "t.parquet"]
    await export(pieces(), tmp_path / "again.csv.gz")
    assert (tmp_path / "again.csv.gz").read_bytes() == (tmp_path / "t.csv.gz").read_bytes()


def test_times_of_the_command_line() -> None:
    assert moment_ns("2026-01-31T12:00:00") == 1_769_860_800_000_000_000
    assert moment_ns("1769860800000000000") == 1_769_860_800_000_000_000
    assert 299 < (moment_ns("now") - moment_ns("-5min")) / 1e9 < 301
    with pytest.raises(ConfigurationError):
        moment_ns("yesterday")
