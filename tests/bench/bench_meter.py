"""Figures of the instrument: `python -m tests.bench.bench_meter [--full] [PIECE ...]`.

Without `--full` each piece is a short version of what the issue asks; with it they are whole:
ingest 50 Hz x 4 channels for 10 minutes (<= 3 % of a core, nothing lost), replay (>= 20 x real time), 1,000,000 fuzzed
lines, kill -9 of the bridge 200 times, a full disk (a small tmpfs, needs root), drift and lag on the pseudo-terminal.
"""

import argparse
import asyncio
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

from meter_bridge.ingest import Ingest
from meter_bridge.instrument.description import instrument_of
from meter_bridge.protocol.frames import Frame
from meter_bridge.settings import BridgeSettings
from meter_bridge.sources.replay import ReplaySource
from meter_bridge.trace.event_log import EventLog
from meter_bridge.trace.recording import RecordingHead, RecordingWriter
from meter_bridge.trace.store import TraceStore
from tests.support.meter_fuzz import run_fuzzed
from tests.support.meter_rig import MeterRig, cpu_s

NODES = ("node1", "node2", "node3", "node4")


def rows(state: Path) -> list[tuple[int, int, int, bytes]]:
    """Return (stream, seq, device ms, power) of every committed sample."""
    with closing(sqlite3.connect(f"file:{state}/trace.sqlite?mode=ro", uri=True)) as db:
        return list(db.execute("SELECT stream_id, seq, device_ms, power_w FROM sample ORDER BY id"))


def ingest(full: bool) -> bool:
    """CPU of the bridge process while it reads, fits, stores and serves 50 Hz x 4 channels."""
    seconds = 600 if full else 30
    with tempfile.TemporaryDirectory() as folder, MeterRig(Path(folder), NODES) as rig:
        rig.start_emulator("--rate", "50")
        rig.start_bridge()
        rig.wait(lambda: rig.status().frames > 50, "frames")
        assert rig.bridge is not None
        time.sleep(2)
        before, cpu, begun = rig.status(), cpu_s(rig.bridge.pid), time.monotonic()
        time.sleep(seconds)
        share = (cpu_s(rig.bridge.pid) - cpu) / (time.monotonic() - begun)
        after = rig.status()
        asked = time.monotonic()
        block = rig.samples()
        took = time.monotonic() - asked
        rig.wait(lambda: rig.status().frames > after.frames + 100, "frames after the long query")
        rig.samples(time.time_ns() - 10**9)
        stored = [seq for _, seq, _, _ in rows(rig.state)]
        lost = stored[-1] - stored[0] + 1 - len(stored)
        print(f"query: a window of {len(block.utc_ns)} samples x 4 in {took:.2f} s while frames go on coming in")
        print(
            f"ingest: {after.frames - before.frames} frames in {seconds} s, {share:.2%} of one core,"
            f" {lost} frames lost, {after.gaps} gaps, {after.malformed} malformed,"
            f" clock {after.clock.drift_ppm if after.clock else float('nan'):+.2f} ppm", flush=True,
        )  # fmt: skip
        return share <= 0.03 and lost == 0 and after.gaps == 0


def replay(full: bool) -> bool:
    """How much faster than it was recorded a trace runs through clock fit, store and event log."""
    minutes = 60 if full else 10

    async def run(folder: Path) -> float:
        path = folder / "trace.rec.gz"
        with RecordingWriter(path, RecordingHead(NODES, 10.0, "bench", emulated=True)) as recording:
            for number in range(minutes * 600):
                recording.add(Frame((5.0, 6.0, 7.0, 8.0), number, number * 100, (230.0,) * 4), number * 100_000_000)
        settings = BridgeSettings.model_validate(
            {"name": "m", "port": 1, "state_dir": folder, "channels": NODES, "source": {"kind": "replay", "path": path}}
        )
        store = await TraceStore.open(folder / "trace.sqlite")
        events = EventLog(store.put_event)
        sink = Ingest(
            store, events, lambda hello: instrument_of(hello, settings.instrument, vouched=settings.source.vouched)
        )
        source = ReplaySource(path, 4, speed=200.0)
        begun = time.monotonic()
        task = asyncio.create_task(source.run(sink.accept))
        while "ended" not in events.totals:
            await asyncio.sleep(0.01)
        await store.flush()
        took = time.monotonic() - begun
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()
        with closing(sqlite3.connect(folder / "trace.sqlite")) as db:
            (count,) = db.execute("SELECT count(*) FROM sample").fetchone()
        assert count == minutes * 600, f"{count} of {minutes * 600} samples stored"
        return minutes * 60 / took

    with tempfile.TemporaryDirectory() as folder:
        factor = asyncio.run(run(Path(folder)))
    print(f"replay: {minutes} min of 10 Hz x 4 channels at {factor:.0f} x real time (200 x asked), all kept")
    return factor >= 20


def fuzz(full: bool) -> bool:
    """Damaged lines: no crash, every valid frame kept, hardly a false one."""
    count = 1_000_000 if full else 100_000
    begun = time.process_time()
    valid, kept, wrong = run_fuzzed(count, seed=20260131)
    took = time.process_time() - begun
    print(
        f"fuzz: {count} lines in {took:.0f} CPU s, {kept} of {valid} valid frames kept,"
        f" {wrong} damaged frames passed the CRC", flush=True,
    )  # fmt: skip
    return kept == valid and wrong <= 1 + count / 65_536 / 2


def kill(full: bool) -> bool:
    """Kill -9 of the bridge at random moments: what was committed stays, nothing twice."""
    times = 200 if full else 10
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as folder, MeterRig(Path(folder), NODES) as rig:
        rig.start_emulator("--rate", "50")
        committed: list[tuple[int, int, int, bytes]] = []
        bad = 0
        for _ in range(times):
            rig.start_bridge()
            time.sleep(chance.uniform(0.0, 1.5))
            seen = rows(rig.state)
            rig.kill_bridge()
            after = rows(rig.state)
            bad += after[: len(seen)] != seen or seen[: len(committed)] != committed
            bad += len({(stream, seq) for stream, seq, _, _ in after}) != len(after)
            committed = after
        streams = len({stream for stream, *_ in committed})
        numbers = [seq for _, seq, _, _ in committed]
        doubled = len(numbers) - len(set(numbers))
    print(
        f"kill -9: {times} times, {len(committed)} samples committed, {bad} traces damaged, {doubled} frames doubled,"
        f" {streams} stream(s) of one device clock", flush=True,
    )  # fmt: skip
    return bad == 0 and doubled == 0 and len(committed) > 0


def disk(full: bool) -> bool:
    """A full disk: storing stops and says so, live goes on, everything in memory is stored once there is room again."""
    with tempfile.TemporaryDirectory() as folder, MeterRig(Path(folder), NODES) as rig:
        rig.state.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(rig.state)]
        if subprocess.run(mount, capture_output=True).returncode:
            print("disk: not measured, mounting a tmpfs needs root")
            return True
        try:
            rig.start_emulator("--rate", "50")
            rig.start_bridge()
            rig.wait(lambda: rig.status().frames > 50, "frames")
            filler = rig.state / "filler"
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(b"\0" * 4096)
            rig.wait(lambda: not rig.status().storing, "the disk is full", 60)
            problem = rig.status().problems[-1]
            frames = rig.status().frames
            rig.wait(lambda: rig.status().frames > frames + 100, "live goes on")
            time.sleep(5 if full else 1)
            filler.unlink()
            rig.wait(lambda: rig.status().storing, "storing again", 30)
            rig.wait(lambda: rig.status().storing and not rig.status().problems, "no problem left")
            rig.samples(time.time_ns() - 10**9)
            stored = [seq for _, seq, _, _ in rows(rig.state)]
            lost = stored[-1] - stored[0] + 1 - len(stored)
            kinds = rig.kinds()
        finally:
            rig.__exit__()
            subprocess.run(["umount", str(rig.state)], check=True)
    recorded = {"storage_failed", "storage_recovered"} <= kinds
    total = len(stored) + lost
    print(f"disk full: said {problem!r}; afterwards {lost} of {total} samples lost, recorded: {recorded}", flush=True)
    return lost == 0 and recorded


def clock(full: bool) -> bool:
    """Planted drift of the device's clock, recovered over the real pseudo-terminal at 10 Hz."""
    seconds = 180 if full else 60
    fine = True
    for planted in (-200.0, 200.0):
        with tempfile.TemporaryDirectory() as folder, MeterRig(Path(folder), NODES) as rig:
            rig.start_emulator("--rate", "10", "--drift-ppm", str(planted))
            rig.start_bridge()
            time.sleep(seconds)
            fit = rig.status().clock
        assert fit is not None
        fine &= abs(fit.drift_ppm - planted) <= 10
        print(
            f"drift: planted {planted:+.0f} ppm, found {fit.drift_ppm:+.2f} +- {fit.drift_uncertainty_ppm:.2f} ppm"
            f" in {seconds} s at 10 Hz, jitter {fit.jitter_s * 1e3:.2f} ms", flush=True,
        )  # fmt: skip
    return fine


PIECES = {"fuzz": fuzz, "replay": replay, "disk": disk, "kill": kill, "clock": clock, "ingest": ingest}


def main() -> int:
    """Run the pieces named, or all; the exit code is the number that missed its target."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--full", action="store_true")
    arguments.add_argument("pieces", nargs="*", choices=[[], *PIECES])
    given = arguments.parse_args()
    missed = [name for name in given.pieces or PIECES if not PIECES[name](given.full)]
    if missed:
        print(f"missed: {', '.join(missed)}")
    return len(missed)


if __name__ == "__main__":
    sys.exit(main())
