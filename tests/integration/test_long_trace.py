"""A trace of hours and days through the real bridge process: in pieces, in bounded memory, the meter heard."""

import asyncio
import math
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from shared.files.trace_csv import TRACE_HEADER, trace_lines
from shared.kernel.errors import InfrastructureError
from shared.wire.client import AgentClient
from shared.wire.meter_api import SamplePiece, WindowSummary
from shared.wire.meter_client import sample_pieces
from tests.support.long_trace import LONG_AGO_UTC_NS, NODES, NS, fill_trace
from tests.support.meter_rig import MeterRig

_MB = 1 << 20


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[MeterRig]:
    with MeterRig(tmp_path, NODES) as lab:
        yield lab


async def read(rig: MeterRig, start: int, end: int) -> tuple[list[SamplePiece], WindowSummary]:
    client = AgentClient(f"http://127.0.0.1:{rig.port}", None)
    try:
        pieces = [piece async for piece in sample_pieces(client, start, end)]
    finally:
        await client.close()
    assert pieces[-1].window is not None
    return pieces, pieces[-1].window


def test_two_hours_in_pieces_are_the_one_block_and_the_csv(rig: MeterRig) -> None:
    count = fill_trace(rig.state / "trace.sqlite", 2)
    rig.start_bridge()
    start, end = LONG_AGO_UTC_NS, LONG_AGO_UTC_NS + 7200 * NS
    pieces, window = asyncio.run(read(rig, start, end))
    block = rig.samples(start, end)
    assert len(pieces) == count // 6000
    assert [at for piece in pieces for at in piece.utc_ns] == list(block.utc_ns)
    for node in NODES:
        assert [value for piece in pieces for value in piece.power_w[node]] == list(block.power_w[node])
    assert window.instrument == block.instrument
    assert window.energy_register_j == block.energy_register_j
    assert window.energy_register_j == {node: pytest.approx(6 * 7200, rel=1e-4) for node in NODES}
    assert window.events == block.events and [event.kind for event in window.events] == ["gap"]
    text = rig.http.get("/trace.csv", params={"start_utc_ns": start, "end_utc_ns": end}).text
    assert text == f"{TRACE_HEADER}\n" + "".join(trace_lines(block.utc_ns, block.power_w))


def test_another_cursor_and_another_window_are_refused(rig: MeterRig) -> None:
    fill_trace(rig.state / "trace.sqlite", 0.5)
    rig.start_bridge()
    query = {"start_utc_ns": LONG_AGO_UTC_NS, "end_utc_ns": LONG_AGO_UTC_NS + 1800 * NS}
    first = rig.http.get("/samples/piece", params=query).json()
    for wrong in ({**query, "cursor": "x"}, {**query, "end_utc_ns": query["end_utc_ns"] + 1, "cursor": first["next"]}):
        answer = rig.http.get("/samples/piece", params=wrong)  # type: ignore[arg-type]
        assert answer.status_code == 422
        assert answer.json()["error"]["where"] == "cursor"


def test_a_bridge_that_is_killed_between_two_pieces_goes_on_where_it_was(rig: MeterRig) -> None:
    count = fill_trace(rig.state / "trace.sqlite", 1)
    rig.start_bridge()
    start, end = LONG_AGO_UTC_NS, LONG_AGO_UTC_NS + 3600 * NS
    troubles = 0

    async def again(_: Exception) -> None:
        nonlocal troubles
        troubles += 1
        await asyncio.to_thread(rig.start_bridge)

    async def disturbed() -> list[SamplePiece]:
        client = AgentClient(f"http://127.0.0.1:{rig.port}", None)
        pieces: list[SamplePiece] = []
        try:
            async for piece in sample_pieces(client, start, end, on_trouble=again):
                pieces.append(piece)
                if len(pieces) in (1, 4):
                    rig.kill_bridge()
        finally:
            await client.close()
        return pieces

    pieces = asyncio.run(disturbed())
    assert troubles == 2
    assert sum(len(piece.utc_ns) for piece in pieces) == count
    assert pieces == asyncio.run(read(rig, start, end))[0]


def test_without_patience_a_dead_bridge_is_one_error(rig: MeterRig) -> None:
    with pytest.raises(InfrastructureError, match="does not answer"):
        asyncio.run(read(rig, 0, NS))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("hours", "rate_hz"), [(30, 10), (8 * 24, 1)])
def test_days_are_read_in_bounded_memory_while_the_meter_is_heard(rig: MeterRig, hours: int, rate_hz: int) -> None:
    count = fill_trace(rig.state / "trace.sqlite", hours, rate_hz=rate_hz)
    rig.start_emulator("--rate", "10")
    rig.start_bridge()
    assert rig.bridge is not None
    rig.wait(lambda: rig.status().frames > 100, "frames")
    process, before = psutil.Process(rig.bridge.pid), rig.status()
    calm_mb = process.memory_info().rss / _MB
    totals, sums, biggest_mb, slowest_s = 0, [0.0] * len(NODES), 0.0, 0.0

    async def drain() -> WindowSummary:
        nonlocal totals, biggest_mb, slowest_s
        client = AgentClient(f"http://127.0.0.1:{rig.port}", None)
        try:
            began = time.monotonic()
            async for piece in sample_pieces(client, LONG_AGO_UTC_NS, LONG_AGO_UTC_NS + hours * 3600 * NS):
                slowest_s = max(slowest_s, time.monotonic() - began)
                totals += len(piece.utc_ns)
                for channel, node in enumerate(NODES):
                    sums[channel] = math.fsum((sums[channel], *(value or 0.0 for value in piece.power_w[node])))
                biggest_mb = max(biggest_mb, process.memory_info().rss / _MB)
                began = time.monotonic()
            assert piece.window is not None
            return piece.window
        finally:
            await client.close()

    began = time.monotonic()
    window = asyncio.run(drain())
    took_s = time.monotonic() - began
    after = rig.status()
    print(
        f"{hours} h at {rate_hz} Hz: {totals} samples in {took_s:.1f} s, slowest piece {slowest_s:.2f} s,"
        f" bridge {calm_mb:.0f} -> {biggest_mb:.0f} MB, jitter {before.clock and before.clock.jitter_s}"
        f" -> {after.clock and after.clock.jitter_s}"
    )
    assert totals == window.n_samples == count
    assert biggest_mb < calm_mb + 60
    assert after.gaps == before.gaps and after.resets == before.resets
    assert after.frames - before.frames > 5 * took_s
    assert not {"stale", "device_step"} & rig.kinds()
    with rig.http.stream(
        "GET", "/trace.csv",
        params={"start_utc_ns": LONG_AGO_UTC_NS, "end_utc_ns": LONG_AGO_UTC_NS + hours * 3600 * NS},
    ) as answer:  # fmt: skip
        lines = sum(chunk.count(b"\n") for chunk in answer.iter_bytes())
    assert lines == 1 + count * len(NODES)
    assert process.memory_info().rss / _MB < calm_mb + 60
