"""A run of hours and days is evaluated, recomputed, judged, reported, shown, saved and restored in bounded memory."""

import filecmp
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.long_trace import NODES, fill_trace
from tests.support.meter_rig import MeterRig

ROOT = Path(__file__).parents[2]
LIMIT_MB = 300


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[MeterRig]:
    with MeterRig(tmp_path, NODES) as lab:
        yield lab


def peak_mb(what: str, folder: Path, *more: str) -> int:
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.support.long_run", what, str(folder), *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    own, with_parent = map(int, done.stdout.split()[-2:])
    print(f"{what}: {own} MB (getrusage {with_parent} MB), {time.monotonic() - began:.0f} s")
    return max(own, with_parent)


def backup(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "systemd/epi-backup"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def check(rig: MeterRig, tmp_path: Path, hours: float, rate_hz: int) -> None:
    fill_trace(rig.state / "trace.sqlite", hours, rate_hz=rate_hz)
    rig.start_bridge()
    state = tmp_path / "lab"
    folder = state / "results" / "long"
    assert peak_mb("fetch_traces", folder, f"http://127.0.0.1:{rig.port}", str(hours)) <= LIMIT_MB
    for what in ("calc", "validate", "report", "view"):
        assert peak_mb(what, folder) <= LIMIT_MB
    saved, target = tmp_path / "saved", tmp_path / "restored"
    saved.mkdir()
    archive = backup("save", str(saved), "--state", str(state))
    backup("restore", archive, "--state", str(target))
    again = target / "results" / "long"
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            assert filecmp.cmp(path, again / path.relative_to(folder), shallow=False), path
    assert peak_mb("calc", again) <= LIMIT_MB


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hours(rig: MeterRig, tmp_path: Path) -> None:
    check(rig, tmp_path, 2, 10)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("hours", "rate_hz"), [(30, 10), (8 * 24, 1)])
def test_days(rig: MeterRig, tmp_path: Path, hours: int, rate_hz: int) -> None:
    check(rig, tmp_path, hours, rate_hz)
