"""The trace store: batches, a full disk, kill -9, reading back exactly what was taken."""

import math
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter_bridge.protocol.frames import Frame
from meter_bridge.timing.anchor import Anchor
from meter_bridge.trace import store as trace_store
from meter_bridge.trace.reader import TraceReader
from meter_bridge.trace.records import StoredEvent, StoredSample, pack_extra, pack_power, unpack_extra, unpack_power
from meter_bridge.trace.store import TraceStore
from shared.kernel.records import Instrument

INSTRUMENT = Instrument(name="m", kind="ac_meter", emulated=False)


def sample(number: int, stream: int, anchor: int) -> StoredSample:
    return StoredSample(
        utc_ns=10**18 + number * 10**7, mono_ns=number * 10**7, arrival_mono_ns=number * 10**7 + 5, stream_id=stream,
        anchor_id=anchor, power_w=(number / 7, math.nan), seq=number, device_ms=number * 10, frequency_hz=50.01,
        extra=pack_extra(Frame((1.0, 2.0), voltage_v=(230.5, 231.0))), register_wh=(0.5, 1.5),
    )  # fmt: skip


def owners(store: TraceStore) -> tuple[int, int]:
    return store.new_stream(store.instrument_id(INSTRUMENT), 0), store.new_anchor(Anchor("boot", 5), 0)


async def test_what_is_put_is_what_is_read(tmp_path: Path) -> None:
    store = await TraceStore.open(tmp_path / "t.sqlite")
    stream, anchor = owners(store)
    put = [sample(number, stream, anchor) for number in range(1000)]
    for entry in put:
        store.put(entry)
    store.put_event(StoredEvent(10**18, 1, "gap", 3, "x"))
    await store.flush()
    reader = await TraceReader.open(tmp_path / "t.sqlite")
    read = await reader.samples(0, 2**62)
    assert repr(read) == repr(put)
    half = await reader.samples(put[100].utc_ns, put[200].utc_ns)
    assert [entry.seq for entry in half] == list(range(100, 200))
    assert await reader.events(0, 2**62) == [StoredEvent(10**18, 1, "gap", 3, "x")]
    assert await reader.instrument_of(stream) == INSTRUMENT
    await reader.close()
    await store.close()
    again = await TraceStore.open(tmp_path / "t.sqlite")
    assert again.instrument_id(INSTRUMENT) == 1
    assert owners(again)[0] == stream + 1
    await again.close()


async def test_the_writer_commits_by_itself_within_a_second(tmp_path: Path) -> None:
    store = await TraceStore.open(tmp_path / "t.sqlite")
    store.put(sample(1, *owners(store)))
    reader = await TraceReader.open(tmp_path / "t.sqlite")
    begun = time.monotonic()
    while not await reader.count():
        assert time.monotonic() - begun < 3
    await reader.close()
    await store.close()


async def test_a_frame_that_comes_twice_is_stored_once(tmp_path: Path) -> None:
    store = await TraceStore.open(tmp_path / "t.sqlite")
    entry = sample(1, *owners(store))
    store.put(entry)
    await store.flush()
    store.put(entry)
    await store.flush()
    reader = await TraceReader.open(tmp_path / "t.sqlite")
    assert await reader.count() == 1
    await reader.close()
    await store.close()


async def test_a_full_disk_stops_storing_says_so_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_store, "PENDING_LIMIT", 5000)
    store = await TraceStore.open(tmp_path / "t.sqlite")
    stream, anchor = owners(store)
    store.put(sample(0, stream, anchor))
    await store.flush()
    # SQLite itself refuses to grow beyond this: the same error as from a full disk.
    pages = await store._db.read(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    await store._db.read(lambda db: db.execute(f"PRAGMA max_page_count = {pages + 2}").fetchone())
    for number in range(1, 8001):
        store.put(sample(number, stream, anchor))
    await store.flush()
    assert store.problem is not None
    assert "full" in store.problem
    assert store.lost == 3000
    await store._db.read(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchone())
    await store.flush()
    assert store.problem is None
    await store.flush()
    reader = await TraceReader.open(tmp_path / "t.sqlite")
    assert await reader.count() == 1 + 5000
    kinds = [event.kind for event in await reader.events(0, 2**62)]
    assert kinds == ["storage_failed", "storage_recovered"]
    await reader.close()
    await store.close()


_WRITER = """
import asyncio, sys
from pathlib import Path
from meter_bridge.trace.store import TraceStore
from tests.unit.test_meter_store import owners, sample

async def main():
    store = await TraceStore.open(Path(sys.argv[1]))
    stream, anchor = owners(store)
    number = 0
    while True:
        for _ in range(25):
            store.put(sample(number, stream, anchor))
            number += 1
        await store.flush()
        print(stream, number, flush=True)

asyncio.run(main())
"""


def test_kill_9_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    promised: dict[int, int] = {}
    for round_number in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True, bufsize=1
        ) as process:
            assert process.stdout is not None
            for _ in range(20 + 37 * round_number):
                stream, count = map(int, process.stdout.readline().split())
                promised[stream] = count
            process.kill()
            for line in process.stdout.read().splitlines():
                if len(words := line.split()) == 2:
                    promised[int(words[0])] = int(words[1])
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for stream, count in promised.items():
            stored = db.execute("SELECT seq, power_w FROM sample WHERE stream_id = ? ORDER BY id", (stream,)).fetchall()
            assert [seq for seq, _ in stored] == list(range(len(stored)))
            assert len(stored) >= count
            assert all(unpack_power(power)[0] == seq / 7 for seq, power in stored)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20).map(tuple))
def test_power_is_kept_exactly(values: tuple[float, ...]) -> None:
    assert unpack_power(pack_power(values)) == values


def test_extra_quantities_are_packed_with_what_is_there() -> None:
    frame = Frame((1.0, 2.0), voltage_v=(230.5, 231.0), reactive_var=(0.5, 0.25))
    assert unpack_extra(pack_extra(frame), 2) == {"voltage_v": (230.5, 231.0), "reactive_var": (0.5, 0.25)}
    assert pack_extra(Frame((1.0, 2.0))) is None
    assert unpack_extra(None, 2) == {}
