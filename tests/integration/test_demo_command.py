"""`epi demo` as its user meets it: Ctrl-C in the middle leaves no process, `epi campaign resume` finishes."""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.local.layout import LocalLab
from tests.support.lab import processes_under

EPI = [sys.executable, "-m", "shared.cli"]


@pytest.fixture
def out() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="epi"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_ctrl_c_then_resume(out: Path) -> None:
    command = [*EPI, "demo", "--configs", "baseline,drop1_all", "--questions", "4", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        deadline = time.monotonic() + 150
        while not list(out.glob("demo-*/baseline/epi_001.json")):
            assert demo.poll() is None and time.monotonic() < deadline, demo.communicate()[0]
            time.sleep(0.05)
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, output
    assert processes_under(LocalLab(out)) == []
    hint = re.search(r"epi (campaign resume \S+ --out \S+)", output)
    assert hint is not None, output

    done = subprocess.run([*EPI, *hint[1].split()], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "drop1_all" in done.stdout and "EMULATED" in done.stdout
    assert list(out.glob("demo-*/drop1_all/epi_001.json"))
    assert processes_under(LocalLab(out)) == []


def test_an_unknown_configuration_is_refused_before_anything_starts(out: Path) -> None:
    done = subprocess.run(
        [*EPI, "demo", "--configs", "drop4_center", "--out", str(out / "x")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "drop4_center" in done.stderr and "known:" in done.stderr
    assert not (out / "x").exists()


def test_down_without_a_lab_says_so(out: Path) -> None:
    done = subprocess.run([*EPI, "down", "--out", str(out)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "no lab runs there" in done.stderr
