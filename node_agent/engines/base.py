"""What every engine can do for the agent: one protocol with declared capabilities, and what its workers have in common.

Not here: any engine.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from node_agent.processes import Supervised
from shared.kernel.errors import InfrastructureError
from shared.kernel.records import EngineName
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

Progress = Callable[[float, str], None]
_START_S = 60.0


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do; asked before a campaign starts, not discovered in its middle."""

    name: EngineName
    build: str
    score: bool
    generate: bool
    tokenise: bool
    distributed: bool
    overrides_experts_per_token: bool
    layouts: tuple[str, ...] = ("uniform", "biased")
    """Layouts of surgery it can run."""
    requests_per_workload: int | None = None
    """Most requests in one workload; None: any number."""


class Worker(ABC):
    """What lends this node's memory and cores to an engine on the root node: one supervised process on one port."""

    role = "worker"

    def __init__(self, state_dir: Path, host: str, port: int, threads: int) -> None:
        self._state_dir = state_dir
        self._host, self._port, self._threads = host, port, threads
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
    async def _check_port(self) -> None:
        """Raise InfrastructureError where a look at the port can tell that it is taken."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the command line."""

    @abstractmethod
    async def _ready(self, process: Supervised) -> bool:
        """Tell whether the process serves."""


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


class Engine(Protocol):
    """An inference engine as its node agent sees it; every method raises EpiError with a reason."""

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    @property
    def available(self) -> bool:
        """Whether its program or library is installed here."""

    async def find(self) -> bool:
        """Look for an engine process that an earlier agent started; tell whether there is one."""

    async def start(
        self, model: Path, params: StartEngineParams, progress: Progress, *, tokenizer: Path | None = None
    ) -> StartEngineResult:
        """Load `model`, over the given workers; `tokenizer` for engines that keep it in a file of its own."""

    async def stop(self) -> None:
        """End the engine; quiet when there is none."""

    async def prefill(self, params: PrefillParams, progress: Progress) -> WorkloadResult:
        """Evaluate prompts."""

    async def decode(self, params: DecodeParams, progress: Progress) -> WorkloadResult:
        """Generate tokens."""

    async def score(self, params: ScoreParams, progress: Progress) -> ScoreResult:
        """Read log-likelihoods."""

    async def generate(self, params: GenerateParams, progress: Progress) -> GenerateResult:
        """Write texts that may be judged."""
