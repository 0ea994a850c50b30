"""What n questions and r repetitions can resolve: predicted uncertainty, power and smallest effect of an EPI ratio.

The same variance as in `paired`, with expected instead of observed values: 2 CV^2 f(r)/r for the energies and
sum over fields of w^2 d / (A^2 n) for paired answers, where d is the discordant share (docs/epi.md).
"""

from collections.abc import Mapping
from math import ceil, expm1, log, sqrt

from pydantic import Field
from scipy import stats

from orchestrator.domain.arrays import median_factor
from orchestrator.domain.campaign.protocol import AccuracyField
from shared.kernel.records import Record

ALPHA = 0.05


class Expectation(Record):
    """What is expected of a campaign before it runs, given or taken from an earlier one."""

    cv: float = Field(default=0.008, ge=0, le=10, description="repetition spread of ln(J/token)")
    accuracy: float = Field(default=0.7, ge=0.001, le=1)
    discordance: float = Field(default=0.05, ge=1e-6, le=1, description="share of questions answered differently")
    comparisons: int = Field(default=24, ge=1, le=100_000, description="variants compared with a reference")


class Resolution(Record):
    """Uncertainty of one ln(EPI ratio) and what it can show after correction for all comparisons."""

    relative_uncertainty: float
    energy_part: float
    accuracy_part: float
    degrees_of_freedom: float
    smallest_effect: float = Field(description="relative fall of EPI that is named with 80 % power")


def resolution(
    questions: Mapping[AccuracyField, int],
    weights: Mapping[AccuracyField, float],
    repetitions: int,
    expected: Expectation,
) -> Resolution:
    """Predict the uncertainty of an EPI ratio.

    Args:
        questions: n per field.
        weights: weights of the fields, summing to 1.
        repetitions: r, at least 2 (one repetition shows no spread).
        expected: spread, accuracy, discordance, number of comparisons.
    """
    variance_e = 2 * expected.cv**2 * median_factor(repetitions) / repetitions
    parts = [
        (weights[name] ** 2 * expected.discordance / (expected.accuracy**2 * n), n - 1)
        for name, n in questions.items()
        if weights.get(name, 0) > 0
    ]
    variance_a = sum(part for part, _ in parts)
    total = variance_e + variance_a
    lost = variance_e**2 / max(expected.comparisons * (repetitions - 1), 1)
    lost += sum(part**2 / max(freedom, 1) for part, freedom in parts)
    freedom = total**2 / lost if lost > 0 else float("inf")
    u = sqrt(total)
    critical = stats.t.ppf(1 - ALPHA / 2 / expected.comparisons, freedom) + stats.t.ppf(0.8, freedom)
    return Resolution(
        relative_uncertainty=u,
        energy_part=sqrt(variance_e),
        accuracy_part=sqrt(variance_a),
        degrees_of_freedom=freedom,
        smallest_effect=-expm1(-float(critical) * u),
    )


def power(effect: float, predicted: Resolution, comparisons: int, alpha: float = ALPHA) -> float:
    """Return the chance that one variant whose EPI is lower by `effect` (0..1) is named better.

    Noncentral t at the first step of Holm's correction: alpha / comparisons, two-sided.
    """
    critical = stats.t.ppf(1 - alpha / 2 / comparisons, predicted.degrees_of_freedom)
    shift = -log(1 - effect) / predicted.relative_uncertainty
    return float(stats.nct.sf(critical, predicted.degrees_of_freedom, shift))


def questions_needed(
    effect: float,
    weights: Mapping[AccuracyField, float],
    repetitions: int,
    expected: Expectation,
    *,
    wanted_power: float = 0.8,
    limit: int = 1_000_000,
) -> dict[AccuracyField, int] | None:
    """Return the fewest questions per field, in proportion to the weights (least variance), that resolve `effect`.

    None when the spread of the energies alone hides the effect, or more than `limit` questions would be needed.
    """

    def spread(total: int) -> dict[AccuracyField, int]:
        return {name: max(2, ceil(total * weight)) for name, weight in weights.items() if weight > 0}

    def enough(total: int) -> bool:
        predicted = resolution(spread(total), weights, repetitions, expected)
        return power(effect, predicted, expected.comparisons) >= wanted_power

    low, high = 2, limit
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return spread(high)
