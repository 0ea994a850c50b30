"""H1 to H4 as tests on a campaign's joint draws: numbers with their uncertainty and a verdict.

H1 EPI against depth is U-shaped. H2 the EPI-optimal configuration is not the most accurate one. H3 late layers give
more energy per accuracy lost than early ones. H4 energy does not fall linearly with depth (its second difference is
not 0). A verdict needs 95 %; everything between is "open", which is an answer. Not here: sentences
(`orchestrator.reports.hypotheses`).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import stats

from orchestrator.domain.analysis.bootstrap import Draws
from orchestrator.domain.analysis.campaign_data import CampaignData
from orchestrator.domain.analysis.curve import Series, all_series, contrast, operating_point, series_of
from orchestrator.domain.analysis.paired import RatioTerms, holm
from orchestrator.domain.arrays import Floats
from shared.kernel.records import ConfigurationId, LayerGroup, Record

Answer = Literal["supported", "contradicted", "open"]
LEVEL = 0.95


class TwoLines(Record):
    """Simonsohn's (2018) two-lines test: a fall before the break and a rise after it, each one-sided."""

    break_depth: int
    slope_before: float
    slope_after: float
    p_value: float = Field(description="the larger of the two one-sided p-values")


class GroupShape(Record):
    """H1 in one layer group."""

    group: LayerGroup
    probability_interior: float = Field(description="that the lowest EPI lies at a depth in between")
    lines: TwoLines


class ShapeTest(Record):
    """H1: is EPI against depth U-shaped?"""

    answer: Answer
    groups: tuple[GroupShape, ...]


class OptimumTest(Record):
    """H2: is the configuration of lowest EPI another one than the most accurate?"""

    answer: Answer
    configuration_id: ConfigurationId = Field(description="of lowest EPI")
    established: bool = Field(description="named better than its baseline after correction")
    share_differs: float = Field(description="of draws in which the two are different configurations")
    share_most_accurate: float = Field(description="of draws in which it is the most accurate one too")
    probability_lower: float = Field(description="that its EPI is below that of the hardest rival in accuracy")


class LayerGroupTest(Record):
    """H3: do late layers give more energy per accuracy lost than early ones?"""

    answer: Answer
    depths: tuple[int, ...] = Field(description="that both groups were measured at")
    share_both_lose: float = Field(description="of draws in which both groups lose accuracy")
    probability_late: float = Field(description="that late saves more per accuracy lost, where both lose")
    mean_log_epi: float = Field(description="late minus early, mean over depths")
    interval: tuple[float, float] = Field(description="95 % of the mean")


class Curvature(Record):
    """H4 in one layer group: second difference of J/token, as a share of the baseline per expert squared."""

    group: LayerGroup
    median: float
    interval: tuple[float, float]


class LinearityTest(Record):
    """H4: does the saving per expert change with depth?"""

    answer: Answer
    groups: tuple[Curvature, ...]


@dataclass(frozen=True)
class HypothesisTests:
    """H1 to H4; None where the campaign does not hold what the test needs."""

    shape: ShapeTest | None
    optimum: OptimumTest | None
    layers: LayerGroupTest | None
    linearity: LinearityTest | None


def hypothesis_tests(data: CampaignData, terms: RatioTerms, draws: Draws) -> HypothesisTests:
    """Test H1 to H4 on the campaign."""
    return HypothesisTests(
        _shape(data, terms, draws), _optimum(data, terms, draws), _layers(data, draws), _linearity(data, draws)
    )


def two_lines(series: Series, terms: RatioTerms, draws: Draws) -> TwoLines | None:
    """Test for a U-shape of ln(EPI) over depth; None with fewer than 4 depths or unknown spread.

    The break is the depth nearest to the lowest point of a parabola through the values, kept inside.
    """
    depths, rows = np.array(series.depths, dtype=np.float64), list(series.rows)
    values = terms.value
    if len(rows) < 4 or not np.isfinite(draws.log_epi_ratio[:, rows]).all():
        return None
    quadratic = np.polyfit(depths, values[rows], 2)
    lowest = -quadratic[1] / (2 * quadratic[0]) if quadratic[0] > 0 else depths[int(values[rows].argmin())]
    at = int(np.clip(np.abs(depths - lowest).argmin(), 1, len(rows) - 2))
    slopes = []
    for part in (slice(0, at + 1), slice(at, None)):
        centred = depths[part] - depths[part].mean()
        slopes.append(contrast(draws, values, rows[part], centred / (centred @ centred)))
    (before, u_before), (after, u_after) = slopes
    p = max(float(stats.norm.cdf(before / u_before)), float(stats.norm.sf(after / u_after)))
    return TwoLines(break_depth=int(depths[at]), slope_before=before, slope_after=after, p_value=p)


def _shape(data: CampaignData, terms: RatioTerms, draws: Draws) -> ShapeTest | None:
    groups: list[GroupShape] = []
    answers: list[Answer] = []
    found = all_series(data)
    for series in found:
        point = operating_point(data, draws, series)
        lines = two_lines(series, terms, draws)
        if point is None or lines is None:
            continue
        if lines.p_value * len(found) < 1 - LEVEL:  # Bonferroni over the groups
            answers.append("supported")
        elif point.probability_interior < 1 - LEVEL:
            answers.append("contradicted")
        else:
            answers.append("open")
        groups.append(GroupShape(group=series.group, probability_interior=point.probability_interior, lines=lines))
    if not answers:
        return None
    answer: Answer = answers[0] if len(set(answers)) == 1 else "supported" if "supported" in answers else "open"
    return ShapeTest(answer=answer, groups=tuple(groups))


def _optimum(data: CampaignData, terms: RatioTerms, draws: Draws) -> OptimumTest | None:
    """Two argmins of noise differ nearly always, so a difference needs an EPI gain that is established first.

    Supported when the variant of lowest EPI is named better after correction, and its EPI is below that of every
    configuration that may be the most accurate (in over 1 % of draws), each with 95 %.
    """
    own = data.reference == np.arange(data.reference.size)
    if own.all() or not np.isfinite(draws.log_epi_ratio).all():
        return None
    relative = draws.accuracy - draws.accuracy[:, data.root]
    drawn = data.to_root(draws.log_epi_ratio)
    # The baselines of both layouts tie at 0 in both measures: they count as one choice.
    merged = np.where(own, -1, np.arange(data.reference.size))
    accurate = np.bincount(relative.argmax(-1), minlength=own.size) / len(relative)
    differs = float((merged[drawn.argmin(-1)] != merged[relative.argmax(-1)]).mean())
    best = int(data.to_root(terms.value).argmin())
    named = bool(holm(terms.p_values(), ~own)[best] < 1 - LEVEL)
    rivals = [row for row in np.flatnonzero(accurate > 0.01) if merged[row] != merged[best]]
    lower = min((float((drawn[:, best] < drawn[:, row]).mean()) for row in rivals), default=0.0)
    answer: Answer = "open"
    if named and not bool(accurate[best] > 0.01) and lower >= LEVEL:
        answer = "supported"
    elif differs <= 1 - LEVEL:
        answer = "contradicted"
    return OptimumTest(
        answer=answer, configuration_id=data.configurations[best].id, established=named, share_differs=differs,
        share_most_accurate=float(accurate[best]), probability_lower=lower,
    )  # fmt: skip


def _layers(data: CampaignData, draws: Draws) -> LayerGroupTest | None:
    early, late = series_of(data, "early"), series_of(data, "late")
    common = sorted(set(early.depths) & set(late.depths) - {0}) if early and late else []
    if early is None or late is None or not common or not np.isfinite(draws.log_epi_ratio).all():
        return None
    saved: dict[str, Floats] = {}
    lost: dict[str, Floats] = {}
    epi: dict[str, Floats] = {}
    for series in (early, late):
        rows = [series.rows[series.depths.index(depth)] for depth in common]
        saved[series.group] = -draws.log_j_ratio[:, rows].mean(-1)
        lost[series.group] = (draws.accuracy[:, [series.rows[0]]] - draws.accuracy[:, rows]).mean(-1)
        epi[series.group] = draws.log_epi_ratio[:, rows].mean(-1)
    defined = (lost["early"] > 0) & (lost["late"] > 0)
    share = float(defined.mean())
    better = float((saved["late"] * lost["early"] > saved["early"] * lost["late"])[defined].mean()) if share else 0.5
    difference = epi["late"] - epi["early"]
    low, high = (float(x) for x in np.quantile(difference, [0.025, 0.975]))
    answer: Answer = "open"
    if share >= LEVEL:
        # Two-sided, and only where the group that wins saves energy at all: the ratio of two noises says nothing.
        sides: tuple[tuple[str, float, Answer], ...] = (
            ("late", better, "supported"),
            ("early", 1 - better, "contradicted"),
        )
        for group, chance, verdict in sides:
            if min(chance, float((saved[group] > 0).mean())) >= (1 + LEVEL) / 2:
                answer = verdict
    return LayerGroupTest(
        answer=answer, depths=tuple(common), share_both_lose=share, probability_late=better,
        mean_log_epi=float(difference.mean()), interval=(low, high),
    )  # fmt: skip


def _linearity(data: CampaignData, draws: Draws) -> LinearityTest | None:
    groups: list[Curvature] = []
    for series in all_series(data):
        rows = list(series.rows)
        if len(rows) < 3 or not np.isfinite(draws.log_j_ratio[:, rows]).all():
            continue
        depths = np.array(series.depths, dtype=np.float64)
        # Second derivative of the least-squares parabola: for equal steps the weighted mean of second differences.
        weights = 2 * np.linalg.pinv(np.stack([depths**2, depths, np.ones_like(depths)], -1))[0]
        low, middle, high = (
            float(x) for x in np.quantile(np.exp(draws.log_j_ratio[:, rows]) @ weights, [0.025, 0.5, 0.975])
        )
        groups.append(Curvature(group=series.group, median=middle, interval=(low, high)))
    if not groups:
        return None
    curved = all(not one.interval[0] <= 0 <= one.interval[1] for one in groups)
    return LinearityTest(answer="supported" if curved else "open", groups=tuple(groups))
