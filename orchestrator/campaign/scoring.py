"""The benchmark suite and the attempt that it asks: the suite works in a thread, its questions are the attempt's jobs.

Not here: what is asked and how answers are counted (`orchestrator.benchmarks`).
"""

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from orchestrator.benchmarks.records import SuiteResult
from orchestrator.domain.campaign.timeouts import TimeoutsSpec
from shared.wire.node_jobs.activity import AgentActivity
from shared.wire.node_jobs.workloads import GenerateParams, GenerateResult, ScoreParams, ScoreResult

if TYPE_CHECKING:
    from orchestrator.benchmarks.suite import BenchmarkSuite

R = TypeVar("R", ScoreResult, GenerateResult)


class AskNodes(Protocol):
    """Does one job of the suite on the cluster; `first` says that the window has not begun yet."""

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


class Scoring:
    """Lets the suite ask its questions of one attempt after the other."""

    def __init__(self, suite: "BenchmarkSuite", timeouts: TimeoutsSpec) -> None:
        self._suite = suite
        self._timeouts = timeouts
        self._last: asyncio.Task[SuiteResult] | None = None

    async def wait_for_last(self) -> None:
        """Wait until the suite has done with the attempt before, which may be a broken one: it does one at a time."""
        if self._last is not None:
            await asyncio.wait((self._last,))

    async def ask_all(self, ask: AskNodes) -> tuple[asyncio.Task[SuiteResult], tuple[AgentActivity, ...]]:
        """Ask all questions; return when the nodes have answered, while the suite still counts.

        Returns:
            The suite's task, and what the root's agent did in each job where it tells.

        Raises:
            EpiError: what a job or the suite said went wrong.
        """
        loop = asyncio.get_running_loop()
        asked: list[concurrent.futures.Future[ScoreResult] | concurrent.futures.Future[GenerateResult]] = []
        activity: list[AgentActivity] = []
        answered = asyncio.Event()
        left = self._suite.n_jobs

        async def job(kind: Literal["score", "generate"], params: ScoreParams | GenerateParams, result: type[R],
                      timeout_s: float, *, first: bool) -> R:  # fmt: skip
            nonlocal left
            answer = await ask(kind, params, result, timeout_s, first=first)
            if answer.agent is not None:
                activity.append(answer.agent)
            left -= 1
            if not left:
                answered.set()
            return answer

        def score(params: ScoreParams) -> ScoreResult:
            coming = job("score", params, ScoreResult, self._timeouts.score(params), first=not asked)
            future = asyncio.run_coroutine_threadsafe(coming, loop)
            asked.append(future)
            return future.result()

        def generate(params: GenerateParams) -> GenerateResult:
            coming = job("generate", params, GenerateResult, self._timeouts.generate(params), first=not asked)
            future = asyncio.run_coroutine_threadsafe(coming, loop)
            asked.append(future)
            return future.result()

        self._last = scoring = asyncio.create_task(asyncio.to_thread(self._suite.run, score, generate))
        waiting = asyncio.create_task(answered.wait())
        try:
            await asyncio.wait((scoring, waiting), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            for future in asked:
                future.cancel()
            raise
        finally:
            waiting.cancel()
        if not answered.is_set():
            await scoring  # it raises what went wrong
        return scoring, tuple(activity)
