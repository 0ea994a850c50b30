"""Which questions an attempt asks in its score window, and where the answers of the accuracy come from otherwise."""

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.benchmarks.answer_sets import AnswerSet
from orchestrator.campaign.cluster_answers import ClusterAnswers
from orchestrator.campaign.measured import AttemptPlace
from orchestrator.campaign.scoring import Scoring
from orchestrator.campaign.topology import scorer_of
from orchestrator.domain.campaign.protocol import AccuracyPlace
from shared.kernel.records import ConfigurationId


@dataclass(frozen=True)
class Questions:
    """What the attempts of a campaign ask."""

    where: AccuracyPlace
    scoring: Scoring | None
    """Asks all questions, or the cluster's sample where others answer them all; None: the cluster is not asked."""
    once: ClusterAnswers | None = None
    """Answers all questions on the cluster, where it is asked once."""
    answers_of: Callable[[ConfigurationId], AnswerSet | None] = lambda configuration: None
    """What scorers have answered so far."""

    def in_window(self, place: AttemptPlace) -> Scoring | None:
        """Return what asks in the score window of an attempt; None where it has no such window.

        A sample is asked in the first repetition, of an engine that gives log-probabilities.
        """
        if self.where == "cluster":
            return self.scoring
        engine = place.configuration.engine
        return self.scoring if place.run.repetition == 1 and scorer_of(engine) == engine else None
