"""The real bridge over a real pseudo-terminal: what it stores, what it says, and what it survives."""

import asyncio
import itertools
import json
import os
import pty
import sqlite3
import subprocess
import sys
import time
import tty
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import websockets

from shared.service.daemon import EXIT_SETTINGS
from shared.wire.meter_api import Ambient, LivePower
from tests.support.meter_rig import MeterRig, stop

TOKEN = "a-token-for-tests"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[MeterRig]:
    with MeterRig(tmp_path) as made:
        yield made


def seqs(rig: MeterRig) -> list[tuple[int, int]]:
    """Return (stream, seq) of every stored sample, in the order stored."""
    with closing(sqlite3.connect(f"file:{rig.state}/trace.sqlite?mode=ro", uri=True)) as db:
        return [(int(stream), int(seq)) for stream, seq in db.execute("SELECT stream_id, seq FROM sample ORDER BY id")]


def test_watts_from_the_wire_to_the_answer(tmp_path: Path) -> None:
    with MeterRig(tmp_path, token=TOKEN) as rig:
        rig.start_emulator("--rate", "20", "--noise-w", "0", "--energy-register", "total")
        rig.start_bridge()
        rig.wait(lambda: rig.status().frames >= 60, "frames")
        status = rig.status()
        assert status.connected
        assert status.problems == ()
        assert status.instrument.kind == "emulated"
        assert status.instrument.emulated
        assert status.instrument.sample_rate_hz == 20
        assert status.gaps == status.malformed == status.duplicates == status.resets == 0
        assert rig.http.get("/health").json()["status"] == "ok"

        block = rig.samples()
        assert block.instrument.emulated
        assert len(block.utc_ns) >= 60
        assert set(block.power_w["node1"]) == {5.0}
        assert set(block.power_w["node2"]) == {6.0}
        assert all(b > a for a, b in itertools.pairwise(block.utc_ns))
        assert abs(block.utc_ns[-1] - time.time_ns()) < 2e9
        # The meter's own register agrees with the samples: 5 W x time.
        span_s = (block.utc_ns[-1] - block.utc_ns[0]) / 1e9
        assert block.energy_register_j is not None
        assert block.energy_register_j["node1"] == pytest.approx(5 * span_s, abs=5 * 0.3)

        # Windows are half-open: neighbouring windows share no sample and miss none.
        middle = block.utc_ns[30]
        first = rig.samples(block.utc_ns[0], middle)
        second = rig.samples(middle, block.utc_ns[-1] + 1)
        assert first.utc_ns + second.utc_ns == block.utc_ns

        # A window that ended a moment ago holds every sample that has arrived, committed or not.
        fresh = rig.samples()
        assert time.time_ns() - fresh.utc_ns[-1] < 0.3e9

        # Every frame keeps its three times and all it was sent with.
        frames = rig.http.get("/frames", params={"start_utc_ns": block.utc_ns[0], "end_utc_ns": middle}).json()
        assert frames["utc_ns"] == list(block.utc_ns[:30])
        assert frames["quantities"]["power_w"]["node1"] == [5.0] * 30
        assert frames["quantities"]["voltage_v"]["node2"] == [230.0] * 30
        steps = [b - a for a, b in itertools.pairwise(frames["seq"])]
        assert set(steps) == {1}
        assert all(b > a for a, b in itertools.pairwise(frames["device_ms"]))
        waits = [a - f for a, f in zip(frames["arrival_utc_ns"], frames["utc_ns"], strict=True)]
        assert all(-50e6 < wait < 5e9 for wait in waits)

        csv = rig.http.get("/trace.csv", params={"start_utc_ns": block.utc_ns[0], "end_utc_ns": middle}).text
        lines = csv.splitlines()
        assert lines[0] == "timestamp,node,watts"
        assert len(lines) == 1 + 2 * 30
        assert lines[1].endswith(",node1,5.0")

        assert rig.bridge is not None
        assert stop(rig.bridge) == 0


def test_every_endpoint_wants_the_token_and_names_what_is_wrong(tmp_path: Path) -> None:
    with MeterRig(tmp_path, token=TOKEN) as rig:
        rig.start_bridge()
        with httpx.Client(base_url=str(rig.http.base_url), timeout=10) as stranger:
            paths = ("/health", "/meter", "/samples", "/events", "/trace.csv", "/calibrations", "/budget")
            for path in paths:
                answer = stranger.get(path)
                assert answer.status_code == 401, path
                assert answer.json()["error"]["code"] == "unauthorized"
            for path in ("/calibrations", "/maintenance"):
                assert stranger.post(path, json={}).status_code == 401
        for query, field in (
            ({}, "start_utc_ns"), ({"start_utc_ns": 5, "end_utc_ns": 5}, "end_utc_ns"),
            ({"start_utc_ns": "x", "end_utc_ns": 1}, "start_utc_ns"),
            ({"start_utc_ns": 0, "end_utc_ns": 10**18}, "end_utc_ns"),
        ):  # fmt: skip
            answer = rig.http.get("/samples", params=query)  # type: ignore[arg-type]
            assert answer.status_code == 422
            assert field in answer.json()["error"]["where"]
        refused = rig.http.get("/samples", params={"start_utc_ns": 0, "end_utc_ns": 1, "calibration": "cal-9999"})
        assert refused.status_code == 404
        assert rig.http.post("/maintenance", json={}).status_code == 422

        async def knock(headers: dict[str, str]) -> None:
            async with websockets.connect(f"ws://127.0.0.1:{rig.port}/v1/live", additional_headers=headers) as socket:
                await asyncio.wait_for(socket.recv(), 5)

        with pytest.raises((websockets.InvalidStatus, websockets.ConnectionClosed)):
            asyncio.run(knock({}))


def test_a_meter_that_is_not_there_is_one_clear_message(rig: MeterRig) -> None:
    rig.start_bridge()
    status = rig.status()
    assert not status.connected
    assert status.instrument.kind == "unknown"
    (problem,) = status.problems
    assert str(rig.link) in problem
    assert "no such device" in problem
    assert rig.http.get("/health").json()["status"] == "degraded"
    assert rig.samples().utc_ns == ()
    # It comes by itself once the meter is plugged in.
    rig.start_emulator()
    rig.wait(lambda: rig.status().connected and not rig.status().problems, "the meter is found")


def test_live_feed_aggregates_and_lets_the_bridge_go(rig: MeterRig) -> None:
    rig.start_emulator("--rate", "50", loads=("node1=schedule:0.1x4,0.1x8", "node2=schedule:1x3"))
    rig.start_bridge()
    rig.wait(lambda: rig.status().frames > 5, "frames")

    async def listen() -> list[LivePower]:
        async with websockets.connect(f"ws://127.0.0.1:{rig.port}/v1/live?hz=5") as socket:
            return [LivePower.model_validate_json(await asyncio.wait_for(socket.recv(), 5)) for _ in range(6)]

    messages = asyncio.run(listen())
    gaps = [b.utc_ns - a.utc_ns for a, b in itertools.pairwise(messages[1:])]
    assert all(gap > 0.05e9 for gap in gaps)
    nodes = [message.nodes["node1"] for message in messages]
    assert max(node.max_w for node in nodes) - min(node.min_w for node in nodes) > 3
    for message in messages[1:]:
        assert message.emulated
        node = message.nodes["node1"]
        assert node.min_w <= node.mean_w <= node.max_w
        assert message.cluster_w == pytest.approx(sum(entry.mean_w for entry in message.nodes.values()))

    async def linger() -> int:
        # A client that listens but reads nothing does not keep the bridge from ending.
        async with websockets.connect(f"ws://127.0.0.1:{rig.port}/v1/live") as socket:
            await socket.recv()
            assert rig.bridge is not None
            return await asyncio.to_thread(stop, rig.bridge)

    assert asyncio.run(linger()) == 0


def test_unplug_and_replug_are_survived_and_recorded(rig: MeterRig) -> None:
    rig.start_emulator("--rate", "20")
    rig.start_bridge()
    rig.wait(lambda: rig.status().frames > 20, "frames")
    rig.fault("unplug@0+2")
    rig.wait(lambda: not rig.status().connected, "the loss is seen")
    assert rig.status().problems
    assert "meter" in rig.status().problems[0]
    before = rig.status().frames
    rig.wait(lambda: rig.status().frames > before + 20, "frames again")
    status = rig.status()
    assert status.connected
    assert status.problems == ()
    assert status.reconnects == 1
    assert status.resets >= 1
    assert {"connected", "disconnected", "reset", "hello"} <= rig.kinds()
    assert len(seqs(rig)) == len(set(seqs(rig)))
    block = rig.samples()
    assert {"disconnected", "reset"} <= {event.kind for event in block.events}
    assert max(b - a for a, b in itertools.pairwise(block.utc_ns)) > 1.5e9


def test_damage_is_counted_and_recorded_and_costs_nothing_else(rig: MeterRig) -> None:
    rig.start_emulator("--rate", "50")
    rig.start_bridge()
    rig.wait(lambda: rig.status().frames > 20, "frames")
    for fault in ("badcrc:p=0.1@0+2", "lose:p=0.1@0+2", "repeat:p=0.1@0+2", "garbage:p=0.1@0+2", "truncate:p=0.1@0+2"):
        rig.fault(fault)
    rig.wait(lambda: rig.status().gaps and rig.status().malformed and rig.status().duplicates, "damage")
    time.sleep(2.5)
    rig.samples()
    status = rig.status()
    stored = [seq for _, seq in seqs(rig)]
    assert stored == sorted(set(stored))
    # Every number that is missing was counted as a gap, no more and no less.
    assert status.gaps == stored[-1] - stored[0] + 1 - len(stored)
    events = rig.events()
    counted = {"gap": status.gaps, "malformed": status.malformed, "duplicate": status.duplicates}
    for kind, total in counted.items():
        kinds = (kind, "overflow") if kind == "malformed" else (kind,)
        assert sum(event.count for event in events if event.kind in kinds) == total


def test_a_reset_device_clock_starts_a_new_stream(rig: MeterRig) -> None:
    rig.start_emulator("--rate", "20")
    rig.start_bridge()
    rig.wait(lambda: rig.status().frames > 20, "frames")
    rig.fault("reset")
    rig.wait(lambda: rig.status().resets == 1, "the reset")
    rig.fault("clockstep:ms=5000")
    rig.wait(lambda: rig.status().resets == 2 or "resync" in rig.kinds(), "the step")
    before = rig.status().frames
    rig.wait(lambda: rig.status().frames > before + 20, "frames")
    block = rig.samples()
    assert all(50e6 * 0.2 < b - a < 50e6 * 6 for a, b in itertools.pairwise(block.utc_ns[5:]))
    assert len({stream for stream, _ in seqs(rig)}) == 3


def test_silence_is_noticed(rig: MeterRig) -> None:
    rig.start_emulator("--rate", "20")
    rig.start_bridge()
    rig.wait(lambda: rig.status().frames > 20, "frames")
    rig.fault("silence@0+4")
    rig.wait(lambda: not rig.status().connected, "silence")
    assert rig.status().problems == ("the meter is connected but sends no valid frame",)
    rig.wait(lambda: rig.status().connected, "speech")
    assert {"stale", "alive"} <= rig.kinds()


def test_kill_9_loses_and_doubles_nothing_committed_and_the_stream_goes_on(rig: MeterRig) -> None:
    rig.start_emulator("--rate", "50")
    for _ in range(4):
        rig.start_bridge()
        rig.wait(lambda: rig.status().frames > 40, "frames")
        committed = seqs(rig)
        rig.kill_bridge()
        after = seqs(rig)
        assert after[: len(committed)] == committed
        assert len(set(after)) == len(after)
    rig.start_bridge()
    rig.wait(lambda: rig.status().frames > 40, "frames")
    status = rig.status()
    rig.samples()
    stored = seqs(rig)
    assert len(set(stored)) == len(stored)
    # One device clock throughout: one stream; what was missed is a counted gap.
    assert len({stream for stream, _ in stored}) == 1
    assert status.instrument.kind == "emulated"
    assert status.gaps > 0


def test_emonhub_lines_are_accepted_and_labelled_by_the_user(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    try:
        with MeterRig(tmp_path) as rig:
            rig.start_bridge(source=f'[source]\ndevice = "{os.ttyname(slave)}"\naccept_without_hello = true\n')
            numbers = itertools.count()

            def send() -> bool:
                os.write(master, f"MSG:{next(numbers)},Vrms:231.5,P1:5.25,P2:6.5\n".encode())
                return rig.status().frames >= 20

            rig.wait(send, "frames")
            block = rig.samples()
            assert set(block.power_w["node2"]) == {6.5}
            assert block.instrument.kind == "ac_meter"
            assert not block.instrument.emulated
    finally:
        os.close(master)
        os.close(slave)


def test_a_meter_with_another_number_of_channels_is_named(tmp_path: Path) -> None:
    with MeterRig(tmp_path) as rig:
        rig.start_emulator("--rate", "20", loads=tuple(f"node{n}=schedule:1x5" for n in (1, 2, 3)))
        rig.start_bridge()
        rig.wait(lambda: not rig.status().connected, "the mismatch is seen")
        assert "3 channels" in rig.status().problems[0] or "3 values" in rig.status().problems[0]
        assert rig.status().malformed > 20
        assert rig.samples().utc_ns == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('channels = ["a", "a"]', "own node"),
        ('channels = ["a"]\nbaud = 5', "baud"),
        ("channels = []", "channels"),
        ('channels = ["a"]\n[source]\nkind = "tea"', "source"),
        ('channels = ["a", "b"]\n[source]\nkind = "rapl"', "2 nodes"),
    ],
)
def test_wrong_settings_are_one_message(tmp_path: Path, line: str, message: str) -> None:
    config = tmp_path / "bridge.toml"
    source = "" if "[source]" in line else '\n[source]\ndevice = "/dev/null"\n'
    config.write_text(f'name = "m"\nport = 1\nstate_dir = "{tmp_path}"\n{line}{source}')
    run = subprocess.run(
        [sys.executable, "-m", "meter_bridge", "--config", str(config)], capture_output=True, text=True, timeout=30
    )
    assert run.returncode == EXIT_SETTINGS
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_calibration_is_kept_applied_on_reading_and_nonsense_refused(rig: MeterRig) -> None:
    room = ("--ambient-c", "21.5", "--humidity", "40")
    rig.start_emulator("--rate", "20", "--noise-w", "0", "--fault", "gain:ch=1,k=0.8", *room)
    rig.start_bridge(extra="[instrument.accuracy]\nct_class_percent = 3.0\nct_phase_error_deg = 3.0\n")
    rig.wait(lambda: rig.status().frames > 10, "frames")
    assert set(rig.samples().power_w["node1"]) == {4.0}
    uncalibrated = {row["node"]: row["total"] for row in rig.http.get("/budget", params={"power_w": 5}).json()}
    assert 0.03 < uncalibrated["node1"] < 0.10

    points = [{"node": "node1", "reference_w": watts, "measured_w": 0.8 * watts} for watts in (3, 8, 20, 45)]
    draft = {"reference": "lab meter", "reference_relative_uncertainty": 0.002, "points": points}
    bad = {**draft, "points": [{**point, "measured_w": -point["measured_w"]} for point in points]}  # type: ignore[operator]
    refused = rig.http.post("/calibrations", json=bad)
    assert refused.status_code == 422
    assert "turn the CT round" in refused.json()["error"]["hint"]
    made = rig.http.post("/calibrations", json=draft)
    assert made.status_code == 200, made.text

    block = rig.samples()
    assert block.power_w["node1"][-1] == pytest.approx(5.0, abs=1e-6)
    assert block.power_w["node2"][-1] == pytest.approx(6.0)
    assert block.instrument.calibration_id == "cal-0001"
    assert block.instrument.calibrated_utc_ns == made.json()["created_utc_ns"]
    assert rig.samples(calibration="raw").instrument.calibrated_utc_ns is None
    assert rig.status().ambient == Ambient(temperature_c=21.5, humidity_percent=40)
    assert set(rig.samples(calibration="raw").power_w["node1"]) == {4.0}
    calibrated = {row["node"]: row["total"] for row in rig.http.get("/budget", params={"power_w": 5}).json()}
    assert calibrated["node1"] < 0.01 < calibrated["node2"]
    # It outlives the bridge.
    rig.kill_bridge()
    rig.start_bridge()
    rig.wait(lambda: rig.status().frames > 5, "frames")
    assert rig.status().instrument.calibration_id == "cal-0001"
    assert len(json.loads((rig.state / "calibration" / "cal-0001.json").read_text())["channels"]) == 1


def test_strange_values_are_named(rig: MeterRig) -> None:
    rig.start_emulator("--rate", "50", "--fault", "flip:ch=2", "--fault", "quantise:w=1", "--noise-w", "0.6")
    rig.start_bridge()
    rig.wait(lambda: any("negative" in text for text in rig.status().problems), "the findings")
    problems = "\n".join(rig.status().problems)
    assert "channel 2 (node2): its power is negative" in problems
    assert "grid of 1 W" in problems


def test_maintenance_keeps_power_and_gives_space_back(rig: MeterRig) -> None:
    rig.start_emulator("--rate", "50")
    rig.start_bridge()
    rig.wait(lambda: rig.status().frames > 150, "frames")
    before = rig.samples()
    answer = rig.http.post("/maintenance", json={"compact_days": 1 / 86400})
    assert answer.status_code == 200, answer.text
    assert answer.json()["compacted_samples"] > 50
    after = rig.samples(before.utc_ns[0], before.utc_ns[-1] + 1)
    assert after.power_w == before.power_w
    assert rig.http.post("/maintenance", json={"keep_days": 1 / 86400}).json()["deleted_samples"] > 100
    assert len(rig.samples().utc_ns) < 150
    assert rig.status().storing
