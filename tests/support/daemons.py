"""Each of the four daemons as a real process with the smallest settings that it starts with."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import tomli_w

from tests.support.node_lab import free_port

MODULES = ("orchestrator", "node_agent", "surgeon", "meter_bridge")
TOKEN = "a-token-that-no-log-may-hold"


@dataclass
class DaemonProcess:
    """One daemon; its stderr goes to a file, so that it never waits for a reader."""

    module: str
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.folder / f"{self.module}.toml"

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def stderr(self) -> Path:
        return self.folder / "stderr"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, *, under_journal: bool = False) -> None:
        with self.stderr.open("wb") as stderr:
            status = os.fstat(stderr.fileno())
            environment = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
            if under_journal:
                environment["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
            self.process = subprocess.Popen(self.command, stderr=stderr, env=environment)
        ends = time.monotonic() + 60
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < ends, self.stderr.read_text()
            time.sleep(0.05)

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", self.module, "--config", str(self.config)]

    def get(self, path: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=10)

    def answers(self) -> bool:
        try:
            return self.get("/v1/health").is_success
        except httpx.TransportError:
            return False

    def end(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)


def make_daemon(module: str, folder: Path, **more: object) -> DaemonProcess:
    """Write the settings of a daemon; `more` are further settings."""
    folder.mkdir(parents=True, exist_ok=True)
    daemon = DaemonProcess(module, folder, free_port())
    (folder / "token").write_text(TOKEN)
    away = {"url": "http://127.0.0.1:9", "token_file": str(folder / "token")}
    own: dict[str, dict[str, object]] = {
        "orchestrator": {
            "nodes": [{"name": "node1", **away}], "surgeon": {"name": "surgeon", **away},
            "meter": {"name": "meter", **away}, "results_dir": str(folder), "workload_prompts": str(folder / "prompts"),
        },
        "node_agent": {"worker_port": free_port()},
        "surgeon": {"models": {}},
        "meter_bridge": {"channels": ["node1"], "source": {"kind": "serial", "device": str(folder / "no-meter")}},
    }  # fmt: skip
    settings = {
        "name": "one", "port": daemon.port, "token_file": str(folder / "token"), "state_dir": str(daemon.state_dir),
        **own[module], **more,
    }  # fmt: skip
    daemon.config.write_text(tomli_w.dumps(settings))
    return daemon
