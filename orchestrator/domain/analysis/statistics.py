"""What a campaign's runs and answers say of each configuration: medians, ratios, intervals, verdicts.

Works on logarithms: ln EPI = ln(J/token) - ln A, and Var ln EPI = CV_J^2/r + Var(A)/A^2 + u_cal^2 (docs/epi.md).
A ratio of two configurations measured in pairs drops u_cal, and its accuracy term counts discordant questions only.
The estimator itself is in `paired`; here its numbers become records.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import exp, expm1, sqrt
from statistics import median
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import stats

from orchestrator.domain.analysis.bootstrap import Draws, joint_draws
from orchestrator.domain.analysis.budget import Budget, budget
from orchestrator.domain.analysis.campaign_data import Answers, CampaignData, campaign_data, is_valid
from orchestrator.domain.analysis.paired import RatioTerms, accuracies, energy_spread, holm, ratio_terms
from orchestrator.domain.arrays import Floats
from orchestrator.domain.campaign.matrix import in_matrix_order, reference_of
from orchestrator.domain.campaign.protocol import AccuracyField, AccuracyTask
from orchestrator.domain.run.accuracy import measure_accuracy
from orchestrator.domain.run.evaluate import RunEvaluation
from shared.kernel.records import Configuration, ConfigurationId, Record

Comparison = Literal["better", "worse", "not distinguishable", "reference", "unknown"]
CONFIDENCE = 0.95
POWER = 0.8


class Interval(Record):
    """A two-sided 95 % confidence interval."""

    low: float
    high: float


class ConfigurationResult(Record):
    """One configuration over its valid repetitions, relative to the baseline of its own layout."""

    configuration_id: ConfigurationId
    reference_id: ConfigurationId
    repetitions: int = Field(description="runs in the tree")
    valid_repetitions: int = 0
    epi: float | None = Field(default=None, description="median J/token over accuracy, J/(token accuracy)")
    epi_interval: Interval | None = Field(default=None, description="from the GUM budget, instrument included")
    epi_interval_bootstrap: Interval | None = Field(default=None, description="without the instrument's gain")
    joules_per_token: float | None = Field(default=None, description="median over repetitions")
    accuracy: float | None = None
    n_questions: int = 0
    epi_ratio: float | None = Field(default=None, description="EPI over that of the reference, repetitions paired")
    epi_ratio_interval: Interval | None = None
    epi_ratio_interval_bootstrap: Interval | None = None
    joules_ratio: float | None = None
    joules_ratio_interval: Interval | None = None
    accuracy_difference: float | None = None
    accuracy_difference_interval: Interval | None = None
    p_value: float | None = Field(default=None, description="two-sided, no difference in EPI")
    adjusted_p_value: float | None = Field(default=None, description="Holm over all comparisons of the campaign")
    comparison: Comparison = "unknown"
    reason: str = ""
    relative_uncertainty: float | None = Field(default=None, description="of EPI itself, 1 sigma, instrument included")
    smallest_resolvable: float | None = Field(
        default=None, description="smallest relative EPI change that would be named with 80 % power after correction"
    )
    budget: Budget | None = None


class EnergySpread(Record):
    """Repetition spread of ln(J/token), pooled over configurations, repetitions taken as blocks."""

    cv: float | None = None
    degrees_of_freedom: float = 0


@dataclass(frozen=True)
class CampaignStatistics:
    """Everything that is estimated from a campaign; arrays are None when no run is valid."""

    results: dict[str, ConfigurationResult]
    spread: EnergySpread
    n_comparisons: int
    data: CampaignData | None
    terms: RatioTerms | None
    draws: Draws | None


def campaign_statistics(
    configurations: Sequence[Configuration],
    runs: Mapping[str, Sequence[RunEvaluation]],
    answers: Mapping[str, Sequence[Answers]],
    mapping: Mapping[AccuracyField, AccuracyTask],
    established: Collection[ConfigurationId] | None = None,
) -> CampaignStatistics:
    """Estimate every configuration against its reference, and correct the verdicts for their number.

    In a campaign with interim analyses `established` holds the differences they established: those alone are named.

    Raises:
        DataError: the configurations share no question of some field.
    """
    data = campaign_data(configurations, runs, answers, mapping)
    results = {item.id: _alone(item, runs, answers, mapping) for item in in_matrix_order(configurations)}
    if data is None:
        return CampaignStatistics(results, EnergySpread(), 0, None, None, None)
    for name, reason in data.barred.items():
        results[name] = results[name].model_copy(update={"reason": reason})
    terms = ratio_terms(data.log_j, data.sums, data.reference, data.design)
    variance, freedom = energy_spread(data.log_j)
    known = bool(np.isfinite(variance))
    spread = EnergySpread(cv=sqrt(float(variance)) if known else None, degrees_of_freedom=freedom)
    draws = joint_draws(data)
    family = (data.reference != np.arange(data.reference.size)) & np.isfinite(terms.variance)
    epi_low, epi_high = draws.interval_of_epi(CONFIDENCE)
    tables = _tables(terms, draws, data, family)
    for row, item in enumerate(data.configurations):
        valid = [run for run in runs[item.id] if is_valid(run)]
        own = budget(data, row, valid)
        result = _absolute(results[item.id], data, row, own)
        if known and np.isfinite([epi_low[row], epi_high[row]]).all():
            drawn = Interval(low=exp(float(epi_low[row])), high=exp(float(epi_high[row])))
            result = result.model_copy(update={"epi_interval_bootstrap": drawn})
        if int(data.reference[row]) == row:
            update: dict[str, object] = {
                "comparison": "reference", "epi_ratio": 1.0, "joules_ratio": 1.0, "accuracy_difference": 0.0,
            }  # fmt: skip
        elif not np.isfinite(terms.value[row]):
            update = {"reason": "no repetition or no correct answer in common with the reference"}
        else:
            update = _relative(row, terms, tables, data, known, None if established is None else item.id in established)
        results[item.id] = result.model_copy(update={**update, "valid_repetitions": len(valid)})
    return CampaignStatistics(results, spread, int(family.sum()), data, terms, draws)


@dataclass(frozen=True)
class _Tables:
    low: Floats
    high: Floats
    boot_low: Floats
    boot_high: Floats
    p: Floats
    adjusted: Floats
    resolvable: Floats


def _tables(terms: RatioTerms, draws: Draws, data: CampaignData, family: np.typing.NDArray[np.bool_]) -> _Tables:
    low, high = terms.interval(CONFIDENCE)
    boot_low, boot_high = draws.interval(CONFIDENCE)
    p = terms.p_values()
    m = max(int(family.sum()), 1)
    critical = stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / m, terms.freedom) + stats.t.ppf(POWER, terms.freedom)
    return _Tables(low, high, boot_low, boot_high, p, holm(p, family), critical * np.sqrt(terms.variance))


def _alone(
    item: Configuration,
    runs: Mapping[str, Sequence[RunEvaluation]],
    answers: Mapping[str, Sequence[Answers]],
    mapping: Mapping[AccuracyField, AccuracyTask],
) -> ConfigurationResult:
    """Return what a configuration says without any other: medians of whatever runs there are."""
    own = runs.get(item.id, ())
    joules = [run.epi.joules_per_token for run in own if run.epi.joules_per_token is not None]
    epis = [run.epi.value for run in own if run.epi.value is not None]
    questions = answers[item.id][0].questions if answers.get(item.id) else ()
    accuracy = measure_accuracy(questions, mapping)
    return ConfigurationResult(
        configuration_id=item.id,
        reference_id=reference_of(item),
        repetitions=len(own),
        epi=median(epis) if epis else None,
        joules_per_token=median(joules) if joules else None,
        accuracy=accuracy.composite,
        n_questions=sum(accuracy.n_questions.values()),
        reason="" if own else "no run",
    )


def _absolute(result: ConfigurationResult, data: CampaignData, row: int, own: Budget) -> ConfigurationResult:
    joules = float(np.nanmedian(np.exp(data.log_j[row])))
    accuracy = float(accuracies(data.sums, data.design)[0][row])
    if accuracy <= 0:
        return result.model_copy(update={"accuracy": 0.0, "budget": own, "reason": own.reason, "epi": None})
    value = joules / accuracy
    interval = None
    if own.expanded is not None:
        interval = Interval(low=value * exp(-own.expanded), high=value * exp(own.expanded))
    return result.model_copy(
        update={
            "epi": value,
            "epi_interval": interval,
            "joules_per_token": joules,
            "accuracy": accuracy,
            "n_questions": int(data.design.sizes.sum()),
            "relative_uncertainty": own.combined,
            "budget": own,
            "reason": "",
        }
    )


def _relative(
    row: int, terms: RatioTerms, tables: _Tables, data: CampaignData, known: bool, by_interim: bool | None
) -> dict[str, object]:
    composite = accuracies(data.sums, data.design)[0]
    reference = int(data.reference[row])
    difference = float(composite[row] - composite[reference])
    update: dict[str, object] = {
        "epi_ratio": exp(float(terms.value[row])),
        "joules_ratio": exp(float(terms.energy[row])),
        "accuracy_difference": difference,
    }
    if not np.isfinite(terms.accuracy_variance[row]):
        update["reason"] = "one question or subject of a task only: the spread of the answers is unknown"
        return update
    # The accuracy part of the ratio, back in accuracy: d(ln A ratio) is about dA over the mean accuracy.
    scale = sqrt(float(composite[row] * composite[reference]))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, terms.accuracy_freedom[row]))
    half *= scale * sqrt(float(terms.accuracy_variance[row]))
    update["accuracy_difference_interval"] = Interval(low=difference - half, high=difference + half)
    if not known:
        update["reason"] = "one repetition only: the spread of the energy is unknown"
        return update
    width = float(stats.t.ppf(0.5 + CONFIDENCE / 2, terms.energy_freedom[row]))
    width *= sqrt(float(terms.energy_variance[row]))
    adjusted, value = float(tables.adjusted[row]), float(terms.value[row])
    comparison: Comparison = "not distinguishable"
    if adjusted < 1 - CONFIDENCE if by_interim is None else by_interim:
        comparison = "better" if value < 0 else "worse"
    low, high = float(tables.low[row]), float(tables.high[row])
    reason = ""
    if comparison == "not distinguishable" and not low <= 0 <= high:
        reason = "its own interval excludes 1, but not after correction for the number of comparisons"
        if by_interim is not None:
            reason += " and interim analyses"
    return {
        **update,
        "epi_ratio_interval": Interval(low=exp(low), high=exp(high)),
        "epi_ratio_interval_bootstrap": Interval(
            low=exp(float(tables.boot_low[row])), high=exp(float(tables.boot_high[row]))
        ),
        "joules_ratio_interval": Interval(
            low=exp(float(terms.energy[row]) - width), high=exp(float(terms.energy[row]) + width)
        ),
        "p_value": float(tables.p[row]),
        "adjusted_p_value": adjusted,
        "comparison": comparison,
        "reason": reason,
        "smallest_resolvable": expm1(float(tables.resolvable[row])),
    }
