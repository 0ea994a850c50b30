"""A real emulator process and a real bridge process for tests, on loopback and a pseudo-terminal."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from shared.wire.meter_api import MeterStatus, SampleBlock, TraceEvent


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MeterRig:
    """Starts and stops both; everything it makes lies in `folder`."""

    def __init__(self, folder: Path, nodes: tuple[str, ...] = ("node1", "node2"), token: str | None = None) -> None:
        self.folder = folder
        self.nodes = nodes
        self.link = folder / "meter"
        self.control = folder / "control"
        self.state = folder / "state"
        self.log = folder / "bridge.log"
        self.port = free_port()
        self.token = token
        self.emulator: subprocess.Popen[str] | None = None
        self.bridge: subprocess.Popen[str] | None = None
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}/v1", timeout=20, headers=headers)

    def __enter__(self) -> "MeterRig":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        for process in (self.bridge, self.emulator):
            if process is not None:
                stop(process)

    def start_emulator(self, *options: str, loads: tuple[str, ...] | None = None) -> None:
        channels = loads or tuple(f"{node}=schedule:1x{5 + index}" for index, node in enumerate(self.nodes))
        arguments = ["emulate", "--link", str(self.link), "--control", str(self.control), *options]
        for channel in channels:
            arguments += ["--channel", channel]
        self.emulator = subprocess.Popen(
            [sys.executable, "-m", "meter_bridge.cli", *arguments], stdout=subprocess.PIPE, text=True
        )
        assert self.emulator.stdout is not None
        assert "ready" in self.emulator.stdout.readline()

    def start_bridge(self, extra: str = "", source: str | None = None) -> None:
        config = self.folder / "bridge.toml"
        token = ""
        if self.token is not None:
            (self.folder / "token").write_text(self.token)
            token = f'token_file = "{self.folder}/token"\n'
        source = source or f'[source]\ndevice = "{self.link}"\n'
        config.write_text(
            f'name = "meter"\nport = {self.port}\nstate_dir = "{self.state}"\n{token}'
            f"channels = {list(self.nodes)!r}\n{source}{extra}"
        )
        with self.log.open("w") as stderr:  # a pipe that nobody reads would stop the bridge one day
            self.bridge = subprocess.Popen(
                [sys.executable, "-m", "meter_bridge", "--config", str(config)], stderr=stderr, text=True
            )
        self.wait(lambda: self.answers(), "the bridge answers")

    def answers(self) -> bool:
        try:
            return self.http.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def status(self) -> MeterStatus:
        return MeterStatus.model_validate(self.http.get("/meter").json())

    def samples(self, start_utc_ns: int = 0, end_utc_ns: int | None = None, **query: Any) -> SampleBlock:
        end = time.time_ns() + 10**9 if end_utc_ns is None else end_utc_ns
        start = start_utc_ns or end - 3600 * 10**9
        answer = self.http.get("/samples", params={"start_utc_ns": start, "end_utc_ns": end, **query})
        assert answer.status_code == 200, answer.text
        return SampleBlock.model_validate(answer.json())

    def events(self) -> list[TraceEvent]:
        now = time.time_ns()
        answer = self.http.get("/events", params={"start_utc_ns": now - 3600 * 10**9, "end_utc_ns": now + 10**9})
        return [TraceEvent.model_validate(event) for event in answer.json()]

    def kinds(self) -> set[str]:
        return {event.kind for event in self.events()}

    def fault(self, spec: str) -> None:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as client:
            client.bind(str(self.folder / f"c{time.monotonic_ns()}"))
            client.settimeout(5)
            client.sendto(spec.encode(), str(self.control))
            assert client.recv(300) == b"ok"

    def wait(self, condition: Callable[[], object], what: str, limit_s: float = 60) -> None:
        ends = time.monotonic() + limit_s
        while not condition():
            if self.bridge is not None and self.bridge.poll() is not None:
                raise AssertionError(f"the bridge died: {self.log.read_text()}")
            assert time.monotonic() < ends, f"waited {limit_s} s in vain: {what}"
            time.sleep(0.05)

    def kill_bridge(self) -> None:
        assert self.bridge is not None
        self.bridge.kill()
        self.bridge.communicate()
        self.bridge = None


def stop(process: subprocess.Popen[str]) -> int:
    if process.poll() is None:
        process.terminate()
    try:
        process.communicate(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, in seconds."""
    return time.clock_gettime((~pid << 3) | 2)
