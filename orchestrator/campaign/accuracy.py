"""Where a campaign's accuracy comes from: set up for the place that the spec names, completed at a block's end.

Not here: asking in a window (`scoring`), once on the cluster (`cluster_answers`), by scorers (`scorers`).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from orchestrator.benchmarks.answer_sets import AnswerStore
from orchestrator.campaign.answers import AnswerMaker
from orchestrator.campaign.cluster_answers import ClusterAnswers
from orchestrator.campaign.context import CampaignContext
from orchestrator.campaign.late_answers import LateAnswers
from orchestrator.campaign.preparation import Variant
from orchestrator.campaign.questions import Questions
from orchestrator.campaign.scorers import ScorerPool
from orchestrator.campaign.scoring import Scoring
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.spec import CampaignSpec
from shared.kernel.records import Configuration, ConfigurationId
from shared.service.health import HealthRegistry

if TYPE_CHECKING:
    from orchestrator.benchmarks.suite import BenchmarkSuite


class SuiteMaker(Protocol):
    """Makes a spec's suite, or one of a sample of its questions; takes seconds."""

    def __call__(self, spec: CampaignSpec, sample: int | None = None) -> "BenchmarkSuite":
        """Return the suite."""


@dataclass(frozen=True)
class Suites:
    """What is asked on the cluster."""

    all: "BenchmarkSuite | None"
    """All questions; None where scorers answer them."""
    sample: "BenchmarkSuite | None"
    """The cluster's sample; None where the cluster answers all in each window, or is not asked."""


def make_suites(spec: CampaignSpec, suite_of: SuiteMaker) -> Suites:
    """Make what a campaign needs; takes seconds."""
    if spec.scored == "cluster":
        return Suites(suite_of(spec), None)
    sample = spec.intelligence.cluster_sample
    return Suites(suite_of(spec) if spec.scored == "once" else None, suite_of(spec, sample) if sample else None)


class Accuracy:
    """The answers of one campaign: who gives them, and whether all are there."""

    def __init__(
        self,
        context: CampaignContext,
        suites: Suites,
        suite_of: SuiteMaker,
        late: LateAnswers,
        health: HealthRegistry,
        on_step: Callable[[RunReference, str], None],
    ) -> None:
        self._context = context
        self._suites = suites
        self._suite_of = suite_of
        self._late = late
        self._health = health
        self._on_step = on_step
        self._store = AnswerStore(context.lab.settings.state_dir / "answers")
        self._pool: ScorerPool | None = None
        self._configurations: Sequence[Configuration] = ()

    @asynccontextmanager
    async def asked(
        self, order: Sequence[Configuration], variant_of: Callable[[Configuration], Awaitable[Variant]]
    ) -> AsyncIterator[Questions]:
        """Give what the attempts ask; scorers, where they answer, work until the end of the block."""
        spec, lab = self._context.spec, self._context.lab
        timeouts = spec.timeouts
        sample = None if self._suites.sample is None else Scoring(self._suites.sample, timeouts)
        if spec.scored == "scorers":
            self._configurations = order
            async with ScorerPool(
                self._context,
                order,
                variant_of,
                lambda: self._suite_of(spec),
                self._store,
                self._late.give,
                self._health,
            ) as pool:
                self._pool = pool
                yield Questions(spec.scored, sample, answers_of=pool.answers_of)
            return
        suite = self._suites.all
        assert suite is not None  # made wherever no scorer answers
        if spec.scored == "once":
            maker = AnswerMaker(spec, suite, self._store)
            yield Questions(spec.scored, sample, once=ClusterAnswers(lab, maker, self._on_step))
        else:
            yield Questions(spec.scored, Scoring(suite, timeouts))

    async def complete(
        self, runs: Sequence[RunReference], check_stop_requested: Callable[[], Awaitable[None]]
    ) -> dict[RunReference, str]:
        """Wait until the measured runs have their answers; return why some can have none.

        Raises:
            InfrastructureError: no scorer is left that could answer.
            Exception: whatever `check_stop_requested` raises.
        """
        pool = self._pool
        if pool is None:
            return {}
        failed = await pool.finished(check_stop_requested)
        for name in dict.fromkeys(one.id for one in self._configurations):
            await self._give(pool, name)
        return {run: failed[run.configuration] for run in runs if run.configuration in failed}

    async def _give(self, pool: ScorerPool, configuration: ConfigurationId) -> None:
        """Complete what was being evaluated when the answers came, or was measured by an earlier orchestrator."""
        if (answers := pool.answers_of(configuration)) is not None:
            await self._late.give(configuration, answers)
