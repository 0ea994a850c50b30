"""The benchmark suite's thread and the event loop: the suite waits in its thread for jobs that the loop does.

Not here: which jobs (`scoring`, `answers`).
"""

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from typing import Any, Literal, Protocol, TypeVar

from orchestrator.domain.campaign.timeouts import TimeoutsSpec
from shared.wire.node_jobs.workloads import GenerateParams, GenerateResult, ScoreParams, ScoreResult

T = TypeVar("T")
R = TypeVar("R", ScoreResult, GenerateResult)
Score = Callable[[ScoreParams], ScoreResult]
Generate = Callable[[GenerateParams], GenerateResult]


class AskNodes(Protocol):
    """Does one job of the suite; `first` says that it is the first of a pass."""

    async def __call__(
        self,
        kind: Literal["score", "generate"],
        params: ScoreParams | GenerateParams,
        result: type[R],
        timeout_s: float,
        *,
        first: bool,
    ) -> R:
        """Return the nodes' answer."""


class JobsOfThread:
    """Lets a thread wait for what runs on the loop in which this is made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked: list[concurrent.futures.Future[Any]] = []

    @property
    def none_yet(self) -> bool:
        """True until something was waited for."""
        return not self._asked

    def wait(self, coming: Coroutine[Any, Any, T]) -> T:
        """Return what `coming` returns; called in the thread."""
        future = asyncio.run_coroutine_threadsafe(coming, self._loop)
        self._asked.append(future)
        return future.result()

    def answering(self, ask: AskNodes, timeouts: TimeoutsSpec) -> tuple[Score, Generate]:
        """Return what a suite calls in its thread to have log-likelihoods read and texts written by `ask`."""

        def score(params: ScoreParams) -> ScoreResult:
            return self.wait(ask("score", params, ScoreResult, timeouts.score(params), first=self.none_yet))

        def generate(params: GenerateParams) -> GenerateResult:
            return self.wait(ask("generate", params, GenerateResult, timeouts.generate(params), first=self.none_yet))

        return score, generate

    def cancel(self) -> None:
        """Cancel what the thread waits for, so that the thread ends."""
        for future in self._asked:
            future.cancel()
