"""H1 to H4 as tests on a campaign's joint draws: figures with uncertainty, a verdict, a sentence.

H1 EPI against depth is U-shaped. H2 the EPI-optimal configuration is not the most accurate one. H3 late layers give
more energy per accuracy lost than early ones. H4 energy does not fall linearly with depth (its second difference is
not 0). A verdict needs 95 %; everything between is "open", which is an answer.
"""

from typing import Literal

import numpy as np
from pydantic import Field
from scipy import stats

from orchestrator.domain.bootstrap import Draws
from orchestrator.domain.campaign_data import CampaignData
from orchestrator.domain.curve import Series, all_series, contrast, operating_point, series_of
from orchestrator.domain.paired import Floats, RatioTerms, holm
from orchestrator.domain.wording import signed_percent
from shared.records import Record

Answer = Literal["supported", "contradicted", "open", "not measured"]
LEVEL = 0.95


class Hypothesis(Record):
    """One hypothesis and what the campaign says of it."""

    name: str
    claim: str
    answer: Answer
    sentence: str
    figures: dict[str, float | str | None] = Field(default_factory=dict)


class TwoLines(Record):
    """Simonsohn's (2018) two-lines test: a fall before the break and a rise after it, each one-sided."""

    break_depth: int
    slope_before: float
    slope_after: float
    p_value: float = Field(description="the larger of the two one-sided p-values")


def hypotheses(data: CampaignData, terms: RatioTerms, draws: Draws) -> tuple[Hypothesis, ...]:
    """Answer H1 to H4 for the campaign."""
    return (_h1(data, terms, draws), _h2(data, terms, draws), _h3(data, draws), _h4(data, draws))


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


def _h1(data: CampaignData, terms: RatioTerms, draws: Draws) -> Hypothesis:
    claim = "EPI against pruning depth is U-shaped: some depth in between is best"
    figures: dict[str, float | str | None] = {}
    parts: list[str] = []
    answers: list[Answer] = []
    found = all_series(data)
    for series in found:
        point = operating_point(data, draws, series)
        lines = two_lines(series, terms, draws)
        if point is None or lines is None:
            continue
        figures[f"{series.group}: probability of an interior minimum"] = point.probability_interior
        figures[f"{series.group}: two-lines p"] = lines.p_value
        if lines.p_value * len(found) < 1 - LEVEL:  # Bonferroni over the groups
            answers.append("supported")
        elif point.probability_interior < 1 - LEVEL:
            answers.append("contradicted")
        else:
            answers.append("open")
        parts.append(
            f"{series.group}: P(interior minimum) = {point.probability_interior:.2f}, two-lines test p ="
            f" {lines.p_value:.2g} (slopes {signed_percent(lines.slope_before)} and"
            f" {signed_percent(lines.slope_after)} per expert around depth {lines.break_depth})"
        )
    if not answers:
        return _unmeasured("H1", claim, "it needs at least four depths of a group and two repetitions")
    answer: Answer = answers[0] if len(set(answers)) == 1 else "supported" if "supported" in answers else "open"
    return Hypothesis(name="H1", claim=claim, answer=answer, sentence="; ".join(parts) + ".", figures=figures)


def _h2(data: CampaignData, terms: RatioTerms, draws: Draws) -> Hypothesis:
    """Two argmins of noise differ nearly always, so a difference needs an EPI gain that is established first.

    Supported when the variant of lowest EPI is named better after correction, and its EPI is below that of every
    configuration that may be the most accurate (in over 1 % of draws), each with 95 %.
    """
    claim = "the EPI-optimal configuration is not the most accurate one"
    own = data.reference == np.arange(data.reference.size)
    if own.all() or not np.isfinite(draws.log_epi_ratio).all():
        return _unmeasured("H2", claim, "it needs variants and two repetitions")
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
    itself = bool(accurate[best] > 0.01)
    answer: Answer = "open"
    if named and not itself and lower >= LEVEL:
        answer = "supported"
    elif differs <= 1 - LEVEL:
        answer = "contradicted"
    name = data.configurations[best].id
    sentence = f"The lowest EPI and the highest accuracy belong to different configurations in {differs:.0%} of draws"
    if not named:
        sentence += f"; but {name}, of lowest EPI, is not established as better than its baseline: it may be noise."
    else:
        sentence += (
            f"; {name}, of lowest EPI, is the most accurate one in {accurate[best]:.0%} of draws and has a lower EPI"
            f" than any candidate for that with probability {lower:.2f} or more."
        )
    return Hypothesis(
        name="H2", claim=claim, answer=answer, sentence=sentence,
        figures={"share of draws that differ": differs, "EPI-optimal": name, "least probability of lower EPI": lower},
    )  # fmt: skip


def _h3(data: CampaignData, draws: Draws) -> Hypothesis:
    claim = "dropping experts in late layers saves more energy per accuracy lost than in early layers"
    early, late = series_of(data, "early"), series_of(data, "late")
    common = sorted(set(early.depths) & set(late.depths) - {0}) if early and late else []
    if early is None or late is None or not common or not np.isfinite(draws.log_epi_ratio).all():
        return _unmeasured("H3", claim, "it needs early and late variants of the same depths and two repetitions")
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
    figures: dict[str, float | str | None] = {
        "probability that late saves more per accuracy lost": better if share >= LEVEL else None,
        "share of draws where both lose accuracy": share,
        "mean ln EPI, late minus early": float(difference.mean()),
        "interval low": low,
        "interval high": high,
    }
    mean = f"late minus early, mean over depths {common[0]}..{common[-1]}:"
    mean += f" EPI {signed_percent(float(difference.mean()))} [{signed_percent(low)}, {signed_percent(high)}]"
    if share < LEVEL:
        answer: Answer = "open"
        sentence = (
            f"An accuracy loss of both groups is not established (in {share:.0%} of draws), so energy per accuracy"
            f" lost has no meaning; {mean}."
        )
    else:
        # Two-sided, and only where the group that wins saves energy at all: the ratio of two noises says nothing.
        answer = "open"
        sides: tuple[tuple[str, float, Answer], ...] = (
            ("late", better, "supported"),
            ("early", 1 - better, "contradicted"),
        )
        for group, chance, verdict in sides:
            if min(chance, float((saved[group] > 0).mean())) >= (1 + LEVEL) / 2:
                answer = verdict
        sentence = f"Late saves more per accuracy lost with probability {better:.2f}; {mean}."
    return Hypothesis(name="H3", claim=claim, answer=answer, sentence=sentence, figures=figures)


def _h4(data: CampaignData, draws: Draws) -> Hypothesis:
    claim = "energy does not fall linearly with depth: the saving per expert changes"
    figures: dict[str, float | str | None] = {}
    parts: list[str] = []
    outside = 0
    found = all_series(data)
    for series in found:
        rows = list(series.rows)
        if len(rows) < 3 or not np.isfinite(draws.log_j_ratio[:, rows]).all():
            continue
        depths = np.array(series.depths, dtype=np.float64)
        # Second derivative of the least-squares parabola: for equal steps the weighted mean of second differences.
        weights = 2 * np.linalg.pinv(np.stack([depths**2, depths, np.ones_like(depths)], -1))[0]
        drawn = np.exp(draws.log_j_ratio[:, rows]) @ weights
        low, middle, high = (float(x) for x in np.quantile(drawn, [0.025, 0.5, 0.975]))
        outside += not low <= 0 <= high
        figures[f"{series.group}: second difference of J/token, share of baseline per expert^2"] = middle
        shown = [signed_percent(value, 3) for value in (middle, low, high)]
        parts.append(f"{series.group}: {shown[0]} [{shown[1]}, {shown[2]}]")
    if not parts:
        return _unmeasured("H4", claim, "it needs three depths of a group and two repetitions")
    answer: Answer = "supported" if outside == len(parts) else "open"
    return Hypothesis(
        name="H4", claim=claim, answer=answer, figures=figures,
        sentence="Second difference of J/token against depth, as a share of the baseline per expert squared: "
        + "; ".join(parts) + ("." if outside else "; a straight line is not excluded."),
    )  # fmt: skip


def _answer(probability: float) -> Answer:
    if probability >= LEVEL:
        return "supported"
    return "contradicted" if probability <= 1 - LEVEL else "open"


def _unmeasured(name: str, claim: str, reason: str) -> Hypothesis:
    return Hypothesis(name=name, claim=claim, answer="not measured", sentence=f"This campaign cannot say: {reason}.")
