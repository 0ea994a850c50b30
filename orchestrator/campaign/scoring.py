"""The benchmark suite and the attempt that it asks: the suite works in a thread, its questions are the attempt's jobs.

Not here: what is asked and how answers are counted (`orchestrator.benchmarks`).
"""

import asyncio
from typing import TYPE_CHECKING, Literal

from orchestrator.benchmarks.records import SuiteResult, WindowAnswers
from orchestrator.campaign.asking import AskNodes, JobsOfThread, R
from orchestrator.domain.campaign.timeouts import TimeoutsSpec
from shared.wire.node_jobs.workloads import GenerateParams, ScoreParams

if TYPE_CHECKING:
    from orchestrator.benchmarks.suite import BenchmarkSuite


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

    async def ask_all(self, ask: AskNodes) -> tuple[asyncio.Task[SuiteResult], WindowAnswers]:
        """Ask all questions; return when the nodes have answered, while the suite still counts.

        Returns:
            The suite's task, and what it counts.

        Raises:
            EpiError: what a job or the suite said went wrong.
        """
        jobs = JobsOfThread()
        answers = WindowAnswers()
        answered = asyncio.Event()
        left = self._suite.n_jobs

        async def job(kind: Literal["score", "generate"], params: ScoreParams | GenerateParams, result: type[R],
                      timeout_s: float, *, first: bool) -> R:  # fmt: skip
            nonlocal left, answers
            answer = await ask(kind, params, result, timeout_s, first=first)
            answers = answers.model_copy(update={kind: answer})
            left -= 1
            if not left:
                answered.set()
            return answer

        score, generate = jobs.answering(job, self._timeouts)
        self._last = scoring = asyncio.create_task(asyncio.to_thread(self._suite.run, score, generate))
        waiting = asyncio.create_task(answered.wait())
        try:
            await asyncio.wait((scoring, waiting), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            jobs.cancel()
            raise
        finally:
            waiting.cancel()
        if not answered.is_set():
            await scoring  # it raises what went wrong
        return scoring, answers
