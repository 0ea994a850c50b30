"""What all four daemons have in common, with real processes: one state folder, one end, one way to log."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shared.service.daemon import EXIT_HELD, EXIT_SETTINGS
from tests.support.daemons import MODULES, TOKEN, DaemonProcess, make_daemon


@pytest.fixture(params=MODULES)
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DaemonProcess]:
    made = make_daemon(request.param, tmp_path / "one", log_level="debug")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()


def test_a_second_one_in_the_same_state_folder_is_refused_and_harms_nothing(daemon: DaemonProcess) -> None:
    daemon.start()
    other = make_daemon(daemon.module, daemon.folder.parent / "other", state_dir=str(daemon.state_dir))
    second = subprocess.run(other.command, capture_output=True, text=True, timeout=60)
    assert second.returncode == EXIT_HELD
    (line,) = second.stderr.splitlines()
    assert line.startswith(f"error: {daemon.state_dir}: another "), line
    assert f"(pid {daemon.pid}) works in this folder" in line
    assert daemon.answers()
    daemon.process.kill()  # type: ignore[union-attr]
    daemon.process.wait()  # type: ignore[union-attr]
    daemon.start()  # what a kill leaves is no lock


def test_a_signal_ends_it_in_order_and_the_log_says_so_without_its_token(daemon: DaemonProcess) -> None:
    daemon.start()
    assert daemon.get("/v1/jobs/none").status_code in (404, 405)
    assert daemon.end() == 0
    text = daemon.stderr.read_text()
    lines = text.splitlines()
    assert all(
        re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (DEBUG|INFO|WARNING|ERROR) +\w", line) for line in lines
    )
    assert f"listens on http://127.0.0.1:{daemon.port}" in text
    assert "one has stopped" in lines[-1]
    assert TOKEN not in text and "Traceback" not in text


def test_under_the_journal_every_line_has_its_priority_and_no_time(daemon: DaemonProcess) -> None:
    daemon.start(under_journal=True)
    assert daemon.end() == 0
    lines = daemon.stderr.read_text().splitlines()
    assert len(lines) >= 3
    assert all(re.match(r"<[3467]>[a-z_.]+: ", line) for line in lines), lines


def test_a_port_in_use_is_one_clear_line(daemon: DaemonProcess) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", daemon.port))
        taken.listen()
        run = subprocess.run(daemon.command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith(f"error: 127.0.0.1:{daemon.port}: cannot listen here")
    assert "Traceback" not in run.stderr


def test_under_systemd_what_passes_is_waited_for_before_it_costs_a_restart(tmp_path: Path) -> None:
    daemon = make_daemon("surgeon", tmp_path / "one")
    notified = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, socket.socket() as taken:
        systemd.bind(str(notified))
        systemd.settimeout(60)
        taken.bind(("127.0.0.1", daemon.port))
        taken.listen()
        run = subprocess.Popen(
            daemon.command, stderr=subprocess.PIPE, text=True, env=os.environ | {"NOTIFY_SOCKET": str(notified)}
        )
        assert run.stderr is not None
        while "cannot listen here" not in (line := run.stderr.readline()):
            assert line, "it has ended"
        assert "tried again in 1 s" in line
        taken.close()
        assert systemd.recv(100) == b"READY=1"
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=60)
        assert run.returncode == 0


def test_a_state_folder_of_a_newer_version_is_one_clear_line(tmp_path: Path) -> None:
    import sqlite3

    daemon = make_daemon("surgeon", tmp_path / "one")
    daemon.state_dir.mkdir()
    with sqlite3.connect(daemon.state_dir / "jobs.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    run = subprocess.run(daemon.command, capture_output=True, text=True, timeout=60)
    assert run.returncode == EXIT_SETTINGS
    assert run.stderr.splitlines()[-1].startswith(f"error: {daemon.state_dir}/jobs.sqlite: the database has schema 99")
    assert "Traceback" not in run.stderr


def test_a_signal_while_it_starts_ends_it_too(daemon: DaemonProcess) -> None:
    with subprocess.Popen(daemon.command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()  # "starts in": the signals are caught soon after, or their default ends it
        os.kill(process.pid, signal.SIGTERM)
        process.stderr.read()
        assert process.wait(30) in (0, -signal.SIGTERM)


def test_a_node_writes_no_log_inside_windows_and_all_of_it_afterwards(tmp_path: Path) -> None:
    node = make_daemon("node_agent", tmp_path / "one", log_level="debug")
    node.start()

    def put(job: str, kind: str, params: dict[str, object], delay_s: float = 0.0) -> None:
        body = {"kind": kind, "params": params, "delay_s": delay_s}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = httpx.put(f"http://127.0.0.1:{node.port}/v1/jobs/{job}", json=body, headers=headers)
        assert answer.status_code == 200, answer.text

    try:
        before = node.stderr.read_text()
        for window in ("t/run/marker", "t/run/marker-2"):
            put(window, "marker", {"on_s": 0.3, "off_s": 0.2, "cycles": 2}, delay_s=0.1)
            ends = time.monotonic() + 30
            while node.get(f"/v1/jobs/{window}").json()["status"] in ("queued", "running"):
                assert time.monotonic() < ends
                time.sleep(0.1)
        assert node.get(f"/v1/jobs/{window}").json()["status"] == "finished"
        assert node.stderr.read_text() == before
        put("t/pin", "pin", {"owner": "t", "sha256s": []})
        while "pin finished" not in node.stderr.read_text():
            assert time.monotonic() < ends
            time.sleep(0.1)
    finally:
        assert node.end() == 0
    lines = node.stderr.read_text().removeprefix(before).splitlines()
    told = [re.sub(r"(after|pid)[= ][0-9.]+", r"\1", line.split(": ", 1)[1]) for line in lines[:8]]
    assert told == [
        "marker begins job=t/run/marker", "marker started (pid) job=t/run/marker",
        "marker ended (pid) job=t/run/marker", "marker finished after s job=t/run/marker",
        "marker begins job=t/run/marker-2", "marker started (pid) job=t/run/marker-2",
        "marker ended (pid) job=t/run/marker-2", "marker finished after s job=t/run/marker-2",
    ]  # fmt: skip
    assert lines[:8] == sorted(lines[:8]), "each with the time when it happened"
