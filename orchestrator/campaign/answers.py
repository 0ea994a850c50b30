"""Making answer sets: a suite asks whoever can answer, in jobs of limited size, each kept as soon as it is answered.

What a kill or a lost machine costs is the job that was under way. Not here: where answers come from (`attempt` for the
cluster, `scorers` for machines that no meter watches), and what an answer set is (`orchestrator.benchmarks`).
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.benchmarks.answer_sets import AnswerSet, AnswerSetKey, AnswerStore
from orchestrator.benchmarks.records import SuiteResult
from orchestrator.campaign.asking import AskNodes, JobsOfThread
from orchestrator.campaign.topology import scorer_of
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.domain.run.records import AnswerSource, ServedBy
from shared.kernel.records import Configuration, Sha256
from shared.wire.node_jobs.host import NodeFacts

if TYPE_CHECKING:
    from orchestrator.benchmarks.suite import BenchmarkSuite


class AnswerMaker:
    """Asks all questions of a campaign of one model after the other; what is known already is not asked."""

    def __init__(self, spec: CampaignSpec, suite: "BenchmarkSuite", store: AnswerStore) -> None:
        self._spec = spec
        self._suite = suite
        self._store = store
        self._one_at_a_time = asyncio.Lock()

    def key(
        self, configuration: Configuration, model_sha256: Sha256, machines: Sequence[NodeFacts], *,
        threads: int | None = None, gpu_layers: int = 0,
    ) -> AnswerSetKey:  # fmt: skip
        """Return what the answers of a configuration depend on when these machines give them, the root first."""
        engine, started = scorer_of(configuration.engine), self._spec.engine
        build = machines[0].engine
        return AnswerSetKey(
            model_sha256=model_sha256,
            experts_per_token=configuration.experts_per_token,
            engine=engine,
            engine_build=machines[0].engine_build or "",
            engine_libraries_sha256=None if build is None else build.libraries_sha256,
            processors=tuple(sorted({one.cpu_model or "unknown" for one in machines})),
            context_tokens=started.context_tokens,
            sequences=started.sequences,
            threads=threads or started.threads,
            gpu_layers=gpu_layers,
            questions_per_job=self._spec.intelligence.questions_per_job,
            tasks=self._suite.describe(),
        )

    async def known(self, key: AnswerSetKey) -> AnswerSet | None:
        """Return the answer set where it is whole already; its file is read in a thread."""
        return await asyncio.to_thread(self._store.find, key)

    async def make(self, key: AnswerSetKey, served: ServedBy, ask: AskNodes) -> AnswerSet:
        """Ask what is not answered yet, keep the set and return it.

        Raises:
            EpiError: what a job or the suite said went wrong; what was answered until then is kept.
        """
        async with self._one_at_a_time:
            jobs = JobsOfThread()
            working = asyncio.create_task(asyncio.to_thread(self._ask_all, key, jobs, ask))
            try:
                result = await asyncio.shield(working)
            except asyncio.CancelledError:
                jobs.cancel()
                await asyncio.wait((working,))  # the suite does one pass at a time
                raise
            answers = AnswerSet(
                key=key, served=served, questions=result.questions, versions=result.versions,
                question_sets=result.question_sets,
                start_utc_ns=result.start_utc_ns, end_utc_ns=result.end_utc_ns,
            )  # fmt: skip
            await asyncio.to_thread(self._store.keep, answers)
            return answers

    def _ask_all(self, key: AnswerSetKey, jobs: JobsOfThread, ask: AskNodes) -> SuiteResult:
        from orchestrator.benchmarks.resume import ResumableScore

        score, generate = jobs.answering(ask, self._spec.timeouts)
        path = self._store.in_the_making(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = ResumableScore(
            score, path, identity=key.sha256(), questions_per_job=key.questions_per_job, generate=generate
        )  # fmt: skip
        return self._suite.run(kept, kept.generate)


def source_of(answers: AnswerSet) -> AnswerSource:
    """Return what a result says of its answer set."""
    return AnswerSource(
        answer_set_sha256=answers.key.sha256(), served=answers.served, scored_utc_ns=answers.end_utc_ns,
        question_sets=answers.question_sets,
    )  # fmt: skip
