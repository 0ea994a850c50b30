"""Accuracy that was scored elsewhere than on the cluster: do the cluster's own answers agree, and what does it cost?

The cluster is asked a sample of the questions; its answers beside those of the answer set give the share of equal
choices and the uncertainty of carrying the accuracy over. Not here: who scored, and when (`orchestrator.campaign`).
"""

from collections.abc import Mapping, Sequence
from math import sqrt

from pydantic import Field
from scipy import stats

from orchestrator.domain.campaign.protocol import AccuracyField, AccuracyTask
from orchestrator.domain.run.accuracy import MarkedQuestion, field_of, normalised_weights
from orchestrator.domain.run.findings import Finding
from shared.kernel.records import Record

_RULE = "answers_agree"


class CarriedAccuracy(Record):
    """How the cluster's answers to a sample of the questions compare with the answer set that the accuracy is of."""

    asked: int = Field(description="questions that the cluster answered and the answer set holds")
    agreed: int = Field(description="of them, with the same choice")
    agreement_interval: tuple[float, float] = Field(description="95 %, Clopper-Pearson")
    difference: float = Field(description="composite accuracy of the sample, cluster minus answer set")
    standard_uncertainty: float = Field(description="of the composite accuracy, from carrying it over, 1 sigma")


def compare_answers(
    sample: Sequence[MarkedQuestion], answers: Sequence[MarkedQuestion], mapping: Mapping[AccuracyField, AccuracyTask]
) -> CarriedAccuracy | None:
    """Compare the cluster's answers with those of the answer set; None where they share no weighted question.

    The difference d of the composite is the weighted mean over fields of (right on the cluster - right in the set). Its
    sampling variance is the sum of w^2 p / n, where p is the share of questions whose verdict differs; with none of n
    it is taken as 0.5 / (n + 1), Jeffreys' estimate, since a few equal answers do not prove equality. What is not known
    better is not corrected: d counts as an uncertainty, sqrt(d^2 + variance).
    """
    known = {(one.task, one.question_id): one for one in answers}
    pairs = [(one, known[one.task, one.question_id]) for one in sample if (one.task, one.question_id) in known]
    weights = normalised_weights(mapping)
    by_field: dict[AccuracyField, list[tuple[bool, bool]]] = {}
    for cluster, scored in pairs:
        name = field_of(cluster, mapping)
        if name is not None and weights.get(name):
            by_field.setdefault(name, []).append((cluster.correct, scored.correct))
    if not by_field:
        return None
    total = sum(weights[name] for name in by_field)
    difference = variance = 0.0
    for name, both in by_field.items():
        weight, n = weights[name] / total, len(both)
        difference += weight * sum(one - two for one, two in both) / n
        changed = sum(one != two for one, two in both)
        variance += weight**2 * (changed + 0.5) / (n + 1) / n
    agreed = sum(cluster.choice == scored.choice for cluster, scored in pairs)
    return CarriedAccuracy(
        asked=len(pairs), agreed=agreed, agreement_interval=_clopper_pearson(agreed, len(pairs)),
        difference=difference, standard_uncertainty=sqrt(difference**2 + variance),
    )  # fmt: skip


def check_carried(carried: CarriedAccuracy | None, limit: float) -> list[Finding]:
    """Judge whether the cluster answers as the answer set does: more other choices than `limit` are a FLAG."""
    if carried is None or carried.asked - carried.agreed <= limit * carried.asked:
        return []
    low, high = (1 - edge for edge in reversed(carried.agreement_interval))
    reason = (
        f"the cluster chose otherwise in {carried.asked - carried.agreed} of {carried.asked} questions"
        f" ({low:.1%} to {high:.1%}), limit {limit:.1%}: its accuracy may be another than that of the answer set"
    )
    return [Finding(rule=_RULE, verdict="FLAG", reason=reason, where="score")]


def _clopper_pearson(hits: int, n: int) -> tuple[float, float]:
    low = 0.0 if hits == 0 else float(stats.beta.ppf(0.025, hits, n - hits + 1))
    high = 1.0 if hits == n else float(stats.beta.ppf(0.975, hits + 1, n - hits))
    return low, high
