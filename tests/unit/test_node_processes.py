"""Supervised children: pid files, being found again, and never touching a stranger."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from node_agent.processes import ProcessIdentity, Supervised, is_stopped, tail
from shared.kernel.errors import InfrastructureError

_SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


async def test_start_writes_the_pid_and_stop_removes_it(tmp_path: Path) -> None:
    child = Supervised.start("worker", _SLEEPER, tmp_path)
    pid_file = tmp_path / "pids/worker.pid"
    assert pid_file.read_text().splitlines()[0] == str(child.pid)
    assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
    await child.stop()
    assert not child.running and not pid_file.exists()
    assert ProcessIdentity.of(child.pid) is None


async def test_a_stubborn_child_and_its_children_are_killed(tmp_path: Path) -> None:
    script = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(subprocess.Popen([sys.executable, '-c', 'import signal, time;"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)']).pid, flush=True); time.sleep(60)"
    )
    child = Supervised.start("engine", [sys.executable, "-c", script], tmp_path)
    log = tmp_path / "logs/engine.log"
    while not log.read_text():
        await asyncio.sleep(0.05)
    grandchild = int(log.read_text())
    await asyncio.sleep(0.2)
    await child.stop(grace_s=0.2)
    assert child.exit_status == -signal.SIGKILL
    for _ in range(100):
        if ProcessIdentity.of(grandchild) is None:
            break
        await asyncio.sleep(0.05)
    assert ProcessIdentity.of(grandchild) is None


async def test_an_exit_is_noticed_and_described(tmp_path: Path) -> None:
    script = "import time; time.sleep(.2); raise SystemExit('no luck')"
    child = Supervised.start("engine", [sys.executable, "-c", script], tmp_path)
    await asyncio.wait_for(child.exited.wait(), 10)
    assert child.describe_end() == "ended with exit code 1; its last words: no luck"
    assert not (tmp_path / "pids/engine.pid").exists()


async def test_a_child_of_an_earlier_agent_is_found_and_its_end_noticed(tmp_path: Path) -> None:
    first = Supervised.start("worker", _SLEEPER, tmp_path)
    again = Supervised.find("worker", tmp_path)
    assert again is not None and again.identity == first.identity
    await again.stop()
    await asyncio.wait_for(first.exited.wait(), 10)
    assert Supervised.find("worker", tmp_path) is None


async def test_a_stranger_with_the_same_pid_is_neither_adopted_nor_killed(tmp_path: Path) -> None:
    stranger = subprocess.Popen(_SLEEPER)
    try:
        truth = ProcessIdentity.of(stranger.pid)
        assert truth is not None
        pid_file = tmp_path / "pids/worker.pid"
        ProcessIdentity(truth.pid, truth.start_ticks - 1, truth.boot_id).write(pid_file)
        assert Supervised.find("worker", tmp_path) is None
        assert not pid_file.exists()
        ProcessIdentity(truth.pid, truth.start_ticks, "another boot").write(pid_file)
        assert Supervised.find("worker", tmp_path) is None
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("content", ["", "x\ny\nz\n", "12\n", "1 2 3 4"])
async def test_a_damaged_pid_file_is_removed(tmp_path: Path, content: str) -> None:
    pid_file = tmp_path / "pids/worker.pid"
    pid_file.parent.mkdir()
    pid_file.write_text(content)
    assert Supervised.find("worker", tmp_path) is None
    assert not pid_file.exists()


def test_a_zombie_counts_as_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert ProcessIdentity.of(child.pid) is None
    child.wait()


async def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="No such file"):
        Supervised.start("worker", [str(tmp_path / "nothing")], tmp_path)


def test_tail_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("x" * 100_000 + "\none\n\ntwo\n")
    assert tail(log, lines=2) == "one | two"
    assert tail(tmp_path / "none") == ""


async def test_a_child_that_somebody_stopped_is_told_from_one_that_waits(tmp_path: Path) -> None:
    child = Supervised.start("worker", _SLEEPER, tmp_path)
    assert not is_stopped(child.pid)
    os.kill(child.pid, signal.SIGSTOP)
    while not is_stopped(child.pid):
        await asyncio.sleep(0.01)
    os.kill(child.pid, signal.SIGCONT)
    while is_stopped(child.pid):
        await asyncio.sleep(0.01)
    await child.stop()
    assert not is_stopped(child.pid), "who is gone is not stopped"
