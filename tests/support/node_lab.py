"""Real node agent processes for tests: started on free ports, ended, and checked to leave nothing behind."""

import contextlib
import hashlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from socket import AF_INET, SOCK_STREAM, socket

import psutil

from node_agent.processes import ProcessIdentity
from shared.kernel.errors import InfrastructureError
from shared.wire.client import AgentClient

TOKEN = "a-token-for-the-test"


def free_port() -> int:
    with socket(AF_INET, SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class AgentProcess:
    """One agent process and its settings."""

    def __init__(self, folder: Path, name: str, source: str | None = None) -> None:
        self.state_dir = folder / name
        self.url = f"http://127.0.0.1:{free_port()}"
        self.worker = f"127.0.0.1:{free_port()}"
        self.config = folder / f"{name}.toml"
        token_file = folder / "token"
        token_file.write_text(TOKEN)
        lines = [
            f'name = "{name}"', f"port = {self.url.rsplit(':')[-1]}", f'token_file = "{token_file}"',
            f'state_dir = "{self.state_dir}"', f"worker_port = {self.worker.split(':')[1]}",
        ]  # fmt: skip
        if source is not None:
            lines += [f'source_url = "{source}"', f'source_token_file = "{token_file}"']
        self.config.write_text("\n".join(lines))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "node_agent", "--config", str(self.config)], stderr=subprocess.DEVNULL
        )

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    def pid_of(self, role: str) -> int | None:
        identity = ProcessIdentity.read(self.state_dir / "pids" / f"{role}.pid")
        return None if identity is None or not identity.is_alive() else identity.pid

    def store(self, path: Path) -> str:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        (self.state_dir / "artifacts").mkdir(parents=True, exist_ok=True)
        (self.state_dir / "artifacts" / sha256).write_bytes(path.read_bytes())
        return sha256


@contextmanager
def agents(folder: Path, *names: str) -> Iterator[list[AgentProcess]]:
    """Start agents and end them; nothing of theirs may be left."""
    started = []
    for name in names:
        agent = AgentProcess(folder, name, started[0].url if started else None)
        agent.start()
        started.append(agent)
    try:
        yield started
    finally:
        for agent in started:
            if agent.process is not None and agent.process.poll() is None:
                agent.end()
    left = [p.pid for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or ())]
    assert not left
    assert not list(folder.rglob("*.pid"))


@asynccontextmanager
async def client(agent: AgentProcess) -> AsyncIterator[AgentClient]:
    connection = AgentClient(agent.url, TOKEN)
    try:
        for _ in range(5):  # a busy machine may need longer to start Python than the client is patient
            with contextlib.suppress(InfrastructureError):
                await connection.health()
                break
        yield connection
    finally:
        await connection.close()
