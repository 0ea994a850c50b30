"""What repetitions and paired questions say: medians, ratios to the reference, intervals, verdicts.

Works on logarithms: ln EPI = ln(J/token) - ln A, and Var ln EPI = CV_J^2/r + Var(A)/A^2 + u_cal^2 (docs/epi.md).
A ratio of two configurations measured in pairs drops u_cal, and its accuracy term counts discordant questions only.
"""

from collections.abc import Mapping, Sequence
from math import exp, log, sqrt
from statistics import median
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import stats

from orchestrator.domain.accuracy import field_of, normalised_weights
from orchestrator.domain.evaluate import RunEvaluation
from orchestrator.domain.records import AccuracyField, AccuracyTask
from shared.records import QuestionResult, Record

Comparison = Literal["better", "worse", "not distinguishable", "reference", "unknown"]
CONFIDENCE = 0.95

# Variance of the median of n normal values over that of their mean (order statistics; checked by a test).
_MEDIAN_FACTOR = (1.0, 1.0, 1.3460, 1.1922, 1.4341, 1.2880, 1.4725, 1.3445, 1.4942, 1.3832)


class Interval(Record):
    """A two-sided confidence interval at `CONFIDENCE`."""

    low: float
    high: float


class ConfigurationResult(Record):
    """One configuration over its repetitions, relative to the baseline of its own layout."""

    configuration_id: str
    reference_id: str
    repetitions: int
    epi: float | None = Field(default=None, description="median over repetitions, J/(token accuracy)")
    joules_per_token: float | None = None
    accuracy: float | None = None
    n_questions: int = 0
    epi_ratio: float | None = Field(default=None, description="EPI over that of the reference")
    epi_ratio_interval: Interval | None = None
    joules_ratio: float | None = None
    joules_ratio_interval: Interval | None = None
    accuracy_difference: float | None = None
    accuracy_difference_interval: Interval | None = None
    comparison: Comparison = "unknown"
    reason: str = ""
    relative_uncertainty: float | None = Field(default=None, description="of EPI itself, 1 sigma, instrument included")
    smallest_resolvable: float | None = Field(
        default=None, description="smallest relative EPI change this data would have shown with 80 % power"
    )


class EnergySpread(Record):
    """Repetition spread of J/token, pooled over configurations: standard deviation of its logarithm."""

    cv: float | None = None
    degrees_of_freedom: int = 0


def median_factor(n: int) -> float:
    """Return Var(median)/Var(mean) of n normal values; pi/2 for many."""
    return _MEDIAN_FACTOR[n - 1] if n <= len(_MEDIAN_FACTOR) else float(np.pi / 2)


def pooled_spread(groups: Sequence[Sequence[float]]) -> EnergySpread:
    """Pool the spread of ln(J/token) within configurations; without any repetition it is unknown."""
    squares, freedom = 0.0, 0
    for values in groups:
        if len(values) > 1:
            logs = np.log(np.asarray(values, dtype=np.float64))
            squares += float(((logs - logs.mean()) ** 2).sum())
            freedom += len(values) - 1
    return EnergySpread(cv=sqrt(squares / freedom) if freedom else None, degrees_of_freedom=freedom)


def paired_accuracy(
    variant: Sequence[QuestionResult],
    reference: Sequence[QuestionResult],
    mapping: Mapping[AccuracyField, AccuracyTask],
) -> tuple[float, float, int] | None:
    """Return (difference of composites, its standard uncertainty, common questions); None when a field is missing.

    The variance per field is that of the per-question differences -1, 0, 1 over n: only discordant questions count.
    """
    answers = {(q.task, q.question_id): q.correct for q in reference}
    differences: dict[AccuracyField, list[int]] = {}
    for question in variant:
        name, key = field_of(question, mapping), (question.task, question.question_id)
        if name is not None and key in answers:
            differences.setdefault(name, []).append(int(question.correct) - int(answers[key]))
    mean = variance = 0.0
    count = 0
    for name, weight in normalised_weights(mapping).items():
        if weight == 0:
            continue
        values: NDArray[np.float64] = np.asarray(differences.get(name, ()), dtype=np.float64)
        if values.size < 2:
            return None
        mean += weight * float(values.mean())
        variance += weight**2 * float(values.var(ddof=1)) / values.size
        count += values.size
    return mean, sqrt(variance), count


def compare(
    configuration_id: str,
    reference_id: str,
    runs: Sequence[RunEvaluation],
    reference_runs: Sequence[RunEvaluation],
    questions: Sequence[QuestionResult],
    reference_questions: Sequence[QuestionResult],
    mapping: Mapping[AccuracyField, AccuracyTask],
    spread: EnergySpread,
) -> ConfigurationResult:
    """Compare a configuration with its reference: medians, ratio, interval, verdict.

    `questions` are the answers of one repetition (they are deterministic); `spread` is pooled over the campaign.
    """
    good = [run for run in runs if run.epi.value is not None]
    result = ConfigurationResult(configuration_id=configuration_id, reference_id=reference_id, repetitions=len(runs))
    if not good:
        return result.model_copy(update={"reason": runs[0].epi.reason if runs else "no run"})
    valid = [run for run in good if run.validity.verdict != "FAIL"]
    good = valid or good
    joules = median(run.epi.joules_per_token or 0.0 for run in good)
    accuracy = median(run.epi.accuracy_composite or 0.0 for run in good)
    value = median(run.epi.value or 0.0 for run in good)
    result = result.model_copy(
        update={
            "epi": value,
            "joules_per_token": joules,
            "accuracy": accuracy,
            "n_questions": sum(good[0].accuracy.n_questions.values()),
            "relative_uncertainty": _own_uncertainty(good, spread),
        }
    )
    if not valid:
        return result.model_copy(update={"reason": "barred: every run failed validity"})
    if configuration_id == reference_id:
        return result.model_copy(
            update={"comparison": "reference", "epi_ratio": 1.0, "joules_ratio": 1.0, "accuracy_difference": 0.0}
        )
    base = [run for run in reference_runs if run.epi.value is not None and run.validity.verdict != "FAIL"]
    if not base:
        return result.model_copy(update={"reason": f"the reference {reference_id} has no valid EPI"})
    base_accuracy = median(run.epi.accuracy_composite or 0.0 for run in base)
    epi_ratio = value / median(run.epi.value or 0.0 for run in base)
    joules_ratio = joules / median(run.epi.joules_per_token or 0.0 for run in base)
    result = result.model_copy(
        update={
            "epi_ratio": epi_ratio,
            "joules_ratio": joules_ratio,
            "accuracy_difference": accuracy - base_accuracy,
        }
    )
    pairs = paired_accuracy(questions, reference_questions, mapping)
    if pairs is None:
        return result.model_copy(update={"reason": "the configurations share too few questions"})
    t_two = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
    difference, u_difference, _ = pairs
    result = result.model_copy(
        update={
            "accuracy_difference_interval": Interval(
                low=difference - t_two * u_difference, high=difference + t_two * u_difference
            )
        }
    )
    if spread.cv is None:
        return result.model_copy(update={"reason": "one repetition only: the spread of the energy is unknown"})
    u_joules = spread.cv * sqrt(median_factor(len(good)) / len(good) + median_factor(len(base)) / len(base))
    u_lag = _lag_uncertainty(good, base)
    u_energy = sqrt(u_joules**2 + u_lag**2)
    mean_accuracy = sqrt(accuracy * base_accuracy)
    u_ratio = sqrt(u_energy**2 + (u_difference / mean_accuracy) ** 2)
    freedom = spread.degrees_of_freedom * (u_ratio / u_joules) ** 4 if u_joules > 0 else np.inf
    width = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom))
    interval = _around(epi_ratio, width * u_ratio)
    verdict: Comparison = "not distinguishable"
    if interval.high < 1:
        verdict = "better"
    elif interval.low > 1:
        verdict = "worse"
    return result.model_copy(
        update={
            "epi_ratio_interval": interval,
            "joules_ratio_interval": _around(joules_ratio, width * u_energy),
            "comparison": verdict,
            "smallest_resolvable": exp((width + float(stats.norm.ppf(0.8))) * u_ratio) - 1,
        }
    )


def _around(ratio: float, half_width: float) -> Interval:
    return Interval(low=exp(log(ratio) - half_width), high=exp(log(ratio) + half_width))


def _own_uncertainty(runs: Sequence[RunEvaluation], spread: EnergySpread) -> float | None:
    parts = runs[0].uncertainty
    if spread.cv is None or parts.accuracy is None or parts.instrument is None:
        return None
    repetition = spread.cv**2 * median_factor(len(runs)) / len(runs)
    lag = median(run.uncertainty.lag or 0.0 for run in runs)
    return sqrt(repetition + lag**2 + parts.accuracy**2 + parts.instrument**2)


def _lag_uncertainty(runs: Sequence[RunEvaluation], base: Sequence[RunEvaluation]) -> float:
    own = median(run.uncertainty.lag or 0.0 for run in runs)
    other = median(run.uncertainty.lag or 0.0 for run in base)
    return sqrt(own**2 / len(runs) + other**2 / len(base))
