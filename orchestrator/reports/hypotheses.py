"""H1 to H4 in sentences with figures. Not here: the tests themselves (`orchestrator.domain.analysis.hypotheses`)."""

from typing import Literal

from pydantic import Field

from orchestrator.domain.analysis import hypotheses as tests
from orchestrator.reports.rendering import signed_percent
from shared.kernel.records import Record

Answer = Literal["supported", "contradicted", "open", "not measured"]
Figures = dict[str, float | str | None]


class Hypothesis(Record):
    """One hypothesis and what the campaign says of it."""

    name: str
    claim: str
    answer: Answer
    sentence: str
    figures: Figures = Field(default_factory=dict)


def hypotheses(found: tests.HypothesisTests | None) -> tuple[Hypothesis, ...]:
    """Return H1 to H4 as people read them; empty without comparable runs."""
    if found is None:
        return ()
    return (_h1(found.shape), _h2(found.optimum), _h3(found.layers), _h4(found.linearity))


def _h1(test: tests.ShapeTest | None) -> Hypothesis:
    claim = "EPI against pruning depth is U-shaped: some depth in between is best"
    if test is None:
        return _unmeasured("H1", claim, "it needs at least four depths of a group and two repetitions")
    figures: Figures = {}
    parts = []
    for one in test.groups:
        figures[f"{one.group}: probability of an interior minimum"] = one.probability_interior
        figures[f"{one.group}: two-lines p"] = one.lines.p_value
        parts.append(
            f"{one.group}: P(interior minimum) = {one.probability_interior:.2f}, two-lines test p ="
            f" {one.lines.p_value:.2g} (slopes {signed_percent(one.lines.slope_before)} and"
            f" {signed_percent(one.lines.slope_after)} per expert around depth {one.lines.break_depth})"
        )
    return Hypothesis(name="H1", claim=claim, answer=test.answer, sentence="; ".join(parts) + ".", figures=figures)


def _h2(test: tests.OptimumTest | None) -> Hypothesis:
    claim = "the EPI-optimal configuration is not the most accurate one"
    if test is None:
        return _unmeasured("H2", claim, "it needs variants and two repetitions")
    name = test.configuration_id
    sentence = (
        "The lowest EPI and the highest accuracy belong to different configurations in"
        f" {test.share_differs:.0%} of draws"
    )
    if not test.established:
        sentence += f"; but {name}, of lowest EPI, is not established as better than its baseline: it may be noise."
    else:
        sentence += (
            f"; {name}, of lowest EPI, is the most accurate one in {test.share_most_accurate:.0%} of draws and has a"
            f" lower EPI than any candidate for that with probability {test.probability_lower:.2f} or more."
        )
    figures: Figures = {
        "share of draws that differ": test.share_differs,
        "EPI-optimal": name,
        "least probability of lower EPI": test.probability_lower,
    }
    return Hypothesis(name="H2", claim=claim, answer=test.answer, sentence=sentence, figures=figures)


def _h3(test: tests.LayerGroupTest | None) -> Hypothesis:
    claim = "dropping experts in late layers saves more energy per accuracy lost than in early layers"
    if test is None:
        return _unmeasured("H3", claim, "it needs early and late variants of the same depths and two repetitions")
    low, high = test.interval
    defined = test.share_both_lose >= tests.LEVEL
    figures: Figures = {
        "probability that late saves more per accuracy lost": test.probability_late if defined else None,
        "share of draws where both lose accuracy": test.share_both_lose,
        "mean ln EPI, late minus early": test.mean_log_epi,
        "interval low": low,
        "interval high": high,
    }
    mean = f"late minus early, mean over depths {test.depths[0]}..{test.depths[-1]}:"
    mean += f" EPI {signed_percent(test.mean_log_epi)} [{signed_percent(low)}, {signed_percent(high)}]"
    if defined:
        sentence = f"Late saves more per accuracy lost with probability {test.probability_late:.2f}; {mean}."
    else:
        sentence = (
            f"An accuracy loss of both groups is not established (in {test.share_both_lose:.0%} of draws), so energy"
            f" per accuracy lost has no meaning; {mean}."
        )
    return Hypothesis(name="H3", claim=claim, answer=test.answer, sentence=sentence, figures=figures)


def _h4(test: tests.LinearityTest | None) -> Hypothesis:
    claim = "energy does not fall linearly with depth: the saving per expert changes"
    if test is None:
        return _unmeasured("H4", claim, "it needs three depths of a group and two repetitions")
    figures: Figures = {
        f"{one.group}: second difference of J/token, share of baseline per expert^2": one.median for one in test.groups
    }
    parts = []
    for one in test.groups:
        shown = [signed_percent(value, 3) for value in (one.median, *one.interval)]
        parts.append(f"{one.group}: {shown[0]} [{shown[1]}, {shown[2]}]")
    straight = all(one.interval[0] <= 0 <= one.interval[1] for one in test.groups)
    return Hypothesis(
        name="H4", claim=claim, answer=test.answer, figures=figures,
        sentence="Second difference of J/token against depth, as a share of the baseline per expert squared: "
        + "; ".join(parts) + ("; a straight line is not excluded." if straight else "."),
    )  # fmt: skip


def _unmeasured(name: str, claim: str, reason: str) -> Hypothesis:
    return Hypothesis(name=name, claim=claim, answer="not measured", sentence=f"This campaign cannot say: {reason}.")
