"""What every engine does for the agent: its settings, the engine and its workers, each a base with what is common.

Not here: any engine, and what it can do (`shared.wire.engines`, which the orchestrator reads too).
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil

from node_agent.processes import Supervised
from shared.kernel.errors import ConfigurationError, InfrastructureError
from shared.kernel.progress import Progress
from shared.kernel.records import Record
from shared.wire.engines.base import EngineDescription
from shared.wire.node_jobs.engines import StartEngineParams, StartEngineResult
from shared.wire.node_jobs.workloads import (
    DecodeParams,
    GenerateParams,
    GenerateResult,
    PrefillParams,
    ScoreParams,
    ScoreResult,
    WorkloadResult,
)

_START_S = 60.0


@dataclass(frozen=True)
class Place:
    """Where on this node engines and workers live: processes, sockets and logs, and the workers' one address."""

    state_dir: Path
    worker_host: str
    worker_port: int
    worker_threads: int

    @property
    def worker_endpoint(self) -> str:
        """host:port of this node's worker, of whichever engine."""
        return f"{self.worker_host}:{self.worker_port}"


class Worker(ABC):
    """What lends this node's memory and cores to an engine on the root node: one supervised process on one port."""

    role = "worker"

    def __init__(self, place: Place) -> None:
        self._state_dir = place.state_dir
        self._host, self._port, self._threads = place.worker_host, place.worker_port, place.worker_threads
        self._process: Supervised | None = None

    @property
    def endpoint(self) -> str:
        """host:port."""
        return f"{self._host}:{self._port}"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None and self._process.running else None

    def adopt(self, process: Supervised) -> None:
        """Take over a worker that an earlier agent started."""
        self._process = process

    async def start(self, *, restart: bool = False) -> int:
        """Start the worker or keep the running one; return its pid.

        Raises:
            InfrastructureError: it does not come up, for example because the port is taken.
        """
        if restart:
            await self.stop()
        if self.pid is not None:
            return self.pid
        await self._check_port()
        self._process = process = Supervised.start(self.role, self._command(), self._state_dir, self.environment)
        await wait_until(process, lambda: self._ready(process), self.endpoint)
        return process.pid

    async def stop(self) -> None:
        """End the worker; quiet when there is none."""
        if self._process is not None:
            await self._process.stop()
            self._process = None

    environment: Mapping[str, str] = {}
    """What its process gets beside the agent's environment."""

    @abstractmethod
    def recognises(self, command: Sequence[str]) -> bool:
        """Tell whether a running process with this command line is such a worker."""

    @abstractmethod
    async def _check_port(self) -> None:
        """Raise InfrastructureError where a look at the port can tell that it is taken."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the command line."""

    async def _ready(self, process: Supervised) -> bool:
        """Tell whether the process listens, by the kernel's table.

        A connection would end an idle worker of distributed-llama, and would wait where strangers fill the queue.
        """
        with contextlib.suppress(psutil.Error):
            return any(
                connection.status == psutil.CONN_LISTEN and connection.laddr.port == self._port
                for connection in psutil.Process(process.pid).net_connections(kind="tcp")
            )
        return False


async def wait_until(process: Supervised, ready: Callable[[], Awaitable[bool]], where: str) -> None:
    """Wait until `ready()` holds.

    Raises:
        InfrastructureError: the process ended or did not get ready in time; it is ended then.
    """
    deadline = asyncio.get_running_loop().time() + _START_S
    while not await ready():
        if not process.running:
            raise InfrastructureError(f"the {process.role} {process.describe_end()}", where=where)
        if asyncio.get_running_loop().time() > deadline:
            await process.stop()
            raise InfrastructureError(
                f"the {process.role} was not ready after {_START_S:.0f} s: {process.log_tail()}", where=where
            )
        await asyncio.sleep(0.05)


class Engine(ABC):
    """An inference engine as its node agent sees it; every method raises EpiError with a reason.

    Attributes:
        description: what it can do.
        build: which version this is, for the provenance of results.
    """

    description: ClassVar[EngineDescription]
    build: str

    @property
    def pid(self) -> int | None:
        """Process id while it runs; None also for an engine without a process of its own."""
        return None

    @property
    def available(self) -> bool:
        """Whether its program or library is installed here."""
        return True

    async def find(self) -> bool:
        """Look for an engine process that an earlier agent started; tell whether there is one."""
        return False

    @abstractmethod
    async def start(
        self, model: Path, params: StartEngineParams, progress: Progress, *, tokenizer: Path | None = None
    ) -> StartEngineResult:
        """Load `model`, over the given workers; `tokenizer` for engines that keep it in a file of its own."""

    @abstractmethod
    async def stop(self) -> None:
        """End the engine; quiet when there is none."""

    @abstractmethod
    async def prefill(self, params: PrefillParams, progress: Progress) -> WorkloadResult:
        """Evaluate prompts."""

    @abstractmethod
    async def decode(self, params: DecodeParams, progress: Progress) -> WorkloadResult:
        """Generate tokens."""

    async def score(self, params: ScoreParams, progress: Progress) -> ScoreResult:
        """Read log-likelihoods."""
        raise ConfigurationError(
            f"{self.description.name} gives no log-probabilities", hint="score with llama.cpp on the same weights"
        )

    async def generate(self, params: GenerateParams, progress: Progress) -> GenerateResult:
        """Write texts that may be judged."""
        raise ConfigurationError(
            f"{self.description.name}'s texts may not be judged", hint="judge llama.cpp's on the same weights"
        )


class EngineSettings(Record, ABC):
    """The table `[engines.NAME]` of the agent's TOML file, and how to make the engine and its worker from it.

    Attributes:
        description: what the engine can do; its name is the table's.
    """

    description: ClassVar[EngineDescription]

    @abstractmethod
    def make_engine(self, place: Place) -> Engine:
        """Return the engine, not yet running."""

    def make_worker(self, place: Place) -> Worker | None:
        """Return this node's worker, not yet running; None for an engine that is not distributed."""
        return None
