"""A trace of hours or days in a real trace database, as if a bridge had stored it, made in seconds."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from meter_bridge.timing.anchor import Anchor
from meter_bridge.trace.records import StoredEvent, sample_sum
from meter_bridge.trace.store import TraceStore
from shared.kernel.records import Instrument

NS = 1_000_000_000
LONG_AGO_UTC_NS = 1_790_000_000 * NS
NODES = ("node1", "node2", "node3", "node4")
INSTRUMENT = Instrument(
    name="epi-meter", kind="emulated", emulated=True, firmware="emu-1", measurement_point="emulated AC inlet",
    sample_rate_hz=10.0,
)  # fmt: skip
_BATCH = 20_000
_INSERT = (
    "INSERT INTO sample (utc_ns, mono_ns, arrival_mono_ns, stream_id, anchor_id, seq, device_ms, power_w, register_wh,"
    " row_sum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def fill_trace(path: Path, hours: float, *, rate_hz: int = 10, start_utc_ns: int = LONG_AGO_UTC_NS) -> int:
    """Store `hours` of four channels from `start_utc_ns` on and return the number of samples.

    Power wanders as a node's does, with a daily and a short wave and noise; times jitter by some microseconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stream, anchor = asyncio.run(_owners(path, start_utc_ns))
    count = round(hours * 3600 * rate_hz)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN")
        for first in range(0, count, _BATCH):
            db.executemany(_INSERT, _rows(first, min(_BATCH, count - first), rate_hz, start_utc_ns, stream, anchor))
        db.execute("COMMIT")
    return count


async def _owners(path: Path, start_utc_ns: int) -> tuple[int, int]:
    store = await TraceStore.open(path)
    stream = store.new_stream(store.instrument_id(INSTRUMENT), start_utc_ns)
    anchor = store.new_anchor(Anchor("a boot of long ago", start_utc_ns), start_utc_ns)
    store.put_event(StoredEvent(start_utc_ns + 60 * NS, 60 * NS, "gap", 2, "two frames are missing"))
    await store.close()
    return stream, anchor


def _rows(
    first: int, count: int, rate_hz: int, start_utc_ns: int, stream: int, anchor: int
) -> Iterator[tuple[Any, ...]]:
    rng = np.random.default_rng(first)
    number = np.arange(first, first + count)
    mono_ns = number * (NS // rate_hz) + rng.integers(0, 40_000, count)
    seconds = number / rate_hz
    wave = 6 + 2 * np.sin(seconds / 13_750) + np.sin(seconds / 7)
    power = (wave[:, None] + rng.normal(0, 0.2, (count, len(NODES))) + np.arange(len(NODES))).astype("<f8")
    register = np.repeat((6 * seconds / 3600)[:, None], len(NODES), axis=1).astype("<f8")
    for at, mono in enumerate(mono_ns.tolist()):
        own, packed = first + at, (power[at].tobytes(), register[at].tobytes())
        yield (
            start_utc_ns + mono, mono, mono + 3_000_000, stream, anchor, own, own * 1000 // rate_hz, *packed,
            sample_sum(start_utc_ns + mono, stream, *packed),
        )  # fmt: skip
