"""A daemon under systemd's protocol: ready when it listens, pings while it lives, stopping at the end."""

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shared.service.systemd import watchdog_interval_s

SO_TIMESTAMPNS = 35
"""Of Linux; Python's `socket` does not name it."""
SERVICE = """
import sys
import tempfile
from pathlib import Path
from shared.kernel.settings import DaemonSettings
from shared.service.http import make_app, serve
app = make_app("tiny", "1", None)

@app.get("/environment")
async def environment():
    import os
    return {name: os.environ.get(name) for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")}

with tempfile.TemporaryDirectory() as state:
    serve(app, DaemonSettings(name="service", port=int(sys.argv[1]), state_dir=Path(state)), None)
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def notify_socket(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(20)
        # The kernel's stamp of sending: on a busy machine datagrams wait for their reader.
        listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        yield listener


def test_ready_comes_when_the_service_answers_and_pings_follow(tmp_path: Path, notify_socket: socket.socket) -> None:
    port = free_port()
    environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    with subprocess.Popen([sys.executable, "-c", SERVICE, str(port)], env=environment) as process:
        try:
            assert notify_socket.recv(100) == b"READY=1"
            answer = httpx.get(f"http://127.0.0.1:{port}/environment")  # no retry: ready means it listens
            assert answer.json() == dict.fromkeys(("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"))

            sent_s = []
            for _ in range(4):
                ping, [(_, _, stamp)], *_ = notify_socket.recvmsg(100, 64)
                assert ping == b"WATCHDOG=1"
                seconds, nanoseconds = struct.unpack("qq", stamp)
                sent_s.append(seconds + nanoseconds / 1e9)
            assert sent_s[-1] - sent_s[0] > 0.55, "three intervals of 0.2 s"
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    said = [notify_socket.recv(100)]
    while said[-1] == b"WATCHDOG=1":
        said.append(notify_socket.recv(100))
    assert said[-1] == b"STOPPING=1"


def test_without_a_watchdog_the_service_is_silent_between_ready_and_stopping(
    tmp_path: Path, notify_socket: socket.socket
) -> None:
    environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    environment.pop("WATCHDOG_USEC", None)
    with subprocess.Popen([sys.executable, "-c", SERVICE, str(free_port())], env=environment) as process:
        assert notify_socket.recv(100) == b"READY=1"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert notify_socket.recv(100) == b"STOPPING=1"


def test_only_the_process_that_the_watchdog_means_pings() -> None:
    assert watchdog_interval_s({"WATCHDOG_USEC": "30000000"}) == 15.0
    assert watchdog_interval_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}) == 15.0
    assert watchdog_interval_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_interval_s({}) is None
