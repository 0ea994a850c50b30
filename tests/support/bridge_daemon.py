"""The smallest real daemon of the lab: a meter bridge without a meter, served as every other service is."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

TOKEN = "t" * 32


@dataclass(frozen=True)
class BridgeDaemon:
    """Where it listens, where its state is, and its process."""

    port: int
    folder: Path
    process: psutil.Process

    @property
    def audit_file(self) -> Path:
        return self.folder / "state/audit.jsonl"


@contextmanager
def bridge_daemon(folder: Path, settings: str = "") -> Iterator[BridgeDaemon]:
    """Start the daemon with more lines of `settings`, wait until it listens, end it."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    (folder / "token").write_text(TOKEN)
    (folder / "bridge.toml").write_text(
        f"""
        name = "meter"
        port = {port}
        token_file = "{folder}/token"
        state_dir = "{folder}/state"
        channels = ["node1"]
        {settings}
        [source]
        device = "{folder}/no-such-tty"
        """
    )
    command = [sys.executable, "-m", "meter_bridge", "--config", str(folder / "bridge.toml")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as daemon:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield BridgeDaemon(port, folder, psutil.Process(daemon.pid))
        finally:
            daemon.terminate()
