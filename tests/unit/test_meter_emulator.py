"""The emulated meter: its watts are real CPU time, its faults are what they are called."""

import itertools
import math
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter_bridge.protocol.frames import Frame, Hello, Malformed
from meter_bridge.protocol.parser import LineParser
from meter_bridge.sources.emulator.device import DeviceSpec, EmulatedMeter
from meter_bridge.sources.emulator.faults import KINDS, FaultPlan, parse_fault
from meter_bridge.sources.emulator.loads import ProcessLoad, ScheduleLoad, load_trace, parse_schedule, process_cpu_s
from shared.kernel.errors import ConfigurationError, DataError

_BURNER = """
import hashlib, resource, sys, threading
def work():
    for _ in range(6):
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 60_000)
threads = [threading.Thread(target=work) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, flush=True)
sys.stdin.read()
"""


def frames(spec: DeviceSpec, seconds: float, *faults: str, watts: tuple[float, ...] = (5.0, 8.0)) -> list[Frame]:
    """Run a meter with constant loads in simulated time."""
    loads = [ScheduleLoad([(1.0, value)], now_s=0.0) for value in watts]
    plan = FaultPlan([parse_fault(fault, len(loads)) for fault in faults])
    meter = EmulatedMeter(spec, list(loads), plan, 0.0)
    parser = LineParser(len(loads))
    found: list[Frame] = []
    for number in range(round(seconds * spec.rate_hz)):
        for line in b"".join(meter.lines((number + 1) / spec.rate_hz)).split(b"\n"):
            found += [item for item in parser.parse(line) if isinstance(item, Frame)]
    return found


def test_energy_is_cpu_time_really_used_by_all_threads(tmp_path: Path) -> None:
    code = _BURNER
    load = ProcessLoad(tmp_path, idle_w=3.0, core_w=4.0, now_s=time.monotonic())
    begun = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        (tmp_path / "engine.pid").write_text(f"{process.pid}\n")
        load.observe(time.monotonic())
        known_s = process_cpu_s(process.pid) or 0.0
        assert process.stdout is not None
        used_s = float(process.stdout.readline())
        now = time.monotonic()
        load.observe(now)
        energy = load.energy_j(now) - 3.0 * (now - begun)
        assert energy == pytest.approx(4.0 * used_s, abs=4.0 * (known_s + 0.03))
        assert energy > 0.2
        process.communicate()
    load.observe(time.monotonic())
    assert load.energy_j(time.monotonic()) >= energy


def test_pid_files_may_be_wrong_and_vanish(tmp_path: Path) -> None:
    for name, text in {"a": "", "b": "x", "c": "-4", "d": "99999999", "e": "4194000", "f": "1.5"}.items():
        (tmp_path / f"{name}.pid").write_text(text)
    load = ProcessLoad(tmp_path, idle_w=3.0, core_w=4.0, now_s=0.0)
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            path = tmp_path / "z.pid"
            path.write_text("1\n")
            path.unlink()

    thread = threading.Thread(target=churn)
    thread.start()
    for number in range(300):
        load.observe(number / 10)
    stop.set()
    thread.join()
    missing = ProcessLoad(tmp_path / "not-there", idle_w=3.0, core_w=4.0, now_s=0.0)
    missing.observe(10.0)
    assert missing.energy_j(10.0) == pytest.approx(30.0)


@given(st.lists(st.tuples(st.floats(0.1, 5), st.floats(0, 20)), min_size=1, max_size=5), st.floats(0, 50))
def test_schedule_energy_is_the_integral_of_its_watts(steps: list[tuple[float, float]], until: float) -> None:
    load = ScheduleLoad(steps, now_s=0.0)
    total, at, index = 0.0, 0.0, 0
    while at < until:
        seconds, watts = steps[index % len(steps)]
        part = min(seconds, until - at)
        total, at, index = total + part * watts, at + part, index + 1
    assert load.energy_j(until) == pytest.approx(total, rel=1e-6, abs=1e-6)


def test_hello_says_emulated_and_frames_count() -> None:
    meter = EmulatedMeter(DeviceSpec(), [ScheduleLoad([(1, 5.0)], now_s=0.0)], FaultPlan(), 0.0)
    hello, first = meter.lines(0.1)
    (said,) = LineParser(1).parse(hello.rstrip())
    assert isinstance(said, Hello)
    assert said.kind == "emulated"
    found = frames(DeviceSpec(noise_w=0.0), 3)
    assert [frame.seq for frame in found] == list(range(30))
    assert all(frame.power_w == pytest.approx((5.0, 8.0)) for frame in found)
    assert len(first) < 200


def test_noise_is_reproducible() -> None:
    assert frames(DeviceSpec(seed=7), 2) == frames(DeviceSpec(seed=7), 2)
    assert frames(DeviceSpec(seed=7), 2) != frames(DeviceSpec(seed=8), 2)


def test_lag_and_drift_are_as_planted() -> None:
    load = ScheduleLoad([(2.0, 3.0), (2.0, 9.0)], now_s=0.0)
    meter = EmulatedMeter(DeviceSpec(noise_w=0.0, lag_s=0.75, drift_ppm=200.0), [load], FaultPlan(), 0.0)
    parser = LineParser(1)
    found = []
    for number in range(60):
        for line in meter.lines((number + 1) / 10):
            found += [item for item in parser.parse(line.rstrip()) if isinstance(item, Frame)]
    rise = next(index for index, frame in enumerate(found) if frame.power_w[0] > 3.01)
    # The load rises at 2.00 s and shows 0.75 s later: in the frame of 2.70..2.80 s, by half.
    assert found[rise].power_w[0] == pytest.approx(6.0, abs=0.01)
    assert found[rise].device_ms == pytest.approx(2800 * (1 + 200e-6), abs=1)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("quantise:w=1", lambda fs: all(float(w).is_integer() for f in fs for w in f.power_w)),
        ("stuck:ch=2", lambda fs: len({f.power_w[1] for f in fs}) == 1 and len({f.power_w[0] for f in fs}) > 5),
        ("flip:ch=1", lambda fs: all(f.power_w[0] < 0 < f.power_w[1] for f in fs)),
        ("clip:w=6", lambda fs: all(f.power_w[1] == 6 for f in fs)),
        ("startup:w=6", lambda fs: all(f.power_w[0] == 0 for f in fs)),
        ("swap:a=1,b=2", lambda fs: all(f.power_w[0] > f.power_w[1] for f in fs)),
        ("gain:ch=1,k=1.2", lambda fs: sum(f.power_w[0] for f in fs) / len(fs) == pytest.approx(6.0, abs=0.05)),
        ("offset:ch=1,w=1", lambda fs: sum(f.power_w[0] for f in fs) / len(fs) == pytest.approx(6.0, abs=0.05)),
        ("noise:w=1", lambda fs: max(f.power_w[0] for f in fs) - min(f.power_w[0] for f in fs) > 2),
        ("lose:p=0.3", lambda fs: 40 < len(fs) < 90),
        ("truncate:p=0.3", lambda fs: 30 < len(fs) < 95),
        ("badcrc:p=0.3", lambda fs: 40 < len(fs) < 90),
        ("garbage:p=0.3", lambda fs: len(fs) > 95),
        ("repeat:p=0.3", lambda fs: len(fs) > 110 and len({f.seq for f in fs}) == 100),
        ("silence@2+3", lambda fs: len(fs) == 70),
        ("reset@5", lambda fs: [f.seq for f in fs].count(0) == 2),
        ("clockstep:ms=5000@5", lambda fs: max(b.device_ms - a.device_ms for a, b in itertools.pairwise(fs)) > 5000),
    ],
)  # fmt: skip
def test_every_fault_does_what_it_says(fault: str, check: object) -> None:
    found = frames(DeviceSpec(seed=2), 10, fault)
    assert callable(check)
    assert check(found)


def test_every_fault_is_tested() -> None:
    mark = next(m for m in test_every_fault_does_what_it_says.pytestmark if m.name == "parametrize")  # type: ignore[attr-defined]
    # Unplugging belongs to the port: tests/integration/test_meter_bridge.py.
    assert {case[0].partition(":")[0].partition("@")[0] for case in mark.args[1]} == set(KINDS) - {"unplug"}


@pytest.mark.parametrize("text", ["", "boom", "stuck:ch=9", "stuck:x=1", "lose:p=high", "noise@soon", "swap:a=0"])
def test_a_wrong_fault_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_fault(text, 2)


@pytest.mark.parametrize("register", ["total", "delta"])
def test_energy_register(register: str) -> None:
    found = frames(DeviceSpec(noise_w=0.0, energy_register=register), 36, watts=(100.0,))  # type: ignore[arg-type]
    last = found[-1].energy_wh
    assert last is not None
    if register == "total":
        assert last[0] == pytest.approx(1.0, rel=1e-3)
    else:
        assert math.fsum(f.energy_wh[0] for f in found if f.energy_wh) == pytest.approx(1.0, rel=5e-3)


def test_frames_too_long_for_the_line_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="does not fit"):
        frames(DeviceSpec(rate_hz=100.0), 1, watts=(5.0,) * 4)


def test_schedules_and_traces_are_checked(tmp_path: Path) -> None:
    assert parse_schedule("5x3.2,10x12") == [(5.0, 3.2), (10.0, 12.0)]
    for text in ("", "5", "5x", "ax3"):
        with pytest.raises(ConfigurationError):
            parse_schedule(text)
    trace = tmp_path / "t.csv"
    trace.write_text("timestamp,node,watts\n2026-01-01T00:00:00Z,n1,3\n2026-01-01T00:00:02Z,n1,5\n")
    assert load_trace(trace, "n1") == [(2.0, 3.0)]
    trace.write_text("timestamp,node,watts\nnever,n1,3\n")
    with pytest.raises(DataError):
        load_trace(trace, "n1")


def test_damage_is_seen_as_damage() -> None:
    meter = EmulatedMeter(
        DeviceSpec(), [ScheduleLoad([(1, 5.0)], now_s=0.0)], FaultPlan([parse_fault("badcrc:p=1", 1)]), 0.0
    )
    parser = LineParser(1)
    items = [item for n in range(50) for line in meter.lines((n + 1) / 10) for item in parser.parse(line.rstrip())]
    assert sum(isinstance(item, Malformed) for item in items) >= 50
