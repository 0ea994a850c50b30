"""What every engine can do for the agent: one protocol with declared capabilities.

Here: the protocol. Not here: any engine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from node_agent.processes import Supervised
from shared.node_jobs import (
    DecodeParams,
    EngineName,
    GenerateParams,
    GenerateResult,
    PrefillParams,
    ScoreParams,
    ScoreResult,
    StartEngineParams,
    StartEngineResult,
    WorkloadResult,
)

Progress = Callable[[float, str], None]


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


class Worker(Protocol):
    """What lends this node's memory and cores to an engine on the root node."""

    @property
    def endpoint(self) -> str:
        """host:port."""

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""

    def adopt(self, process: Supervised) -> None:
        """Take over a worker that an earlier agent started."""

    async def start(self, *, restart: bool = False) -> int:
        """Start it or keep the running one; return its pid."""

    async def stop(self) -> None:
        """End it; quiet when there is none."""


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
