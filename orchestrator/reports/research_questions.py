"""The research questions RQ1 to RQ5 and the practical recommendation, in sentences with figures.

RQ1 does dropping experts improve EPI, and how far? RQ2 which layers? RQ3 accuracy-optimal against EPI-optimal.
RQ4 where does the energy go? RQ5 how far does the result reach?
"""

from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.domain.analysis.bootstrap import Draws
from orchestrator.domain.analysis.campaign_data import CampaignData
from orchestrator.domain.analysis.curve import all_series, contrast, operating_point
from orchestrator.domain.analysis.decomposition import EnergyShares, Roofline
from orchestrator.domain.analysis.paired import RatioTerms
from orchestrator.domain.analysis.statistics import CampaignStatistics, ConfigurationResult, Interval
from orchestrator.domain.run.evaluate import RunEvaluation
from orchestrator.reports.rendering import change, change_of_log, number
from orchestrator.results.read_model import CampaignResults
from shared.kernel.records import ConfigurationId, LayerGroup, Record


class ResearchAnswer(Record):
    """One research question and its answer."""

    name: str
    question: str
    answer: str


class Recommendation(Record):
    """What to do; `configuration_id` null means: do not prune."""

    configuration_id: ConfigurationId | None
    sentence: str


def recommendation(statistics: CampaignStatistics) -> Recommendation:
    """Return the variant that is named better with the lowest EPI, or the advice not to prune."""
    results = statistics.results
    better = best_named(results)
    if better is not None:
        item = results[better]
        text = (
            f"Use {better}: EPI {_changed(item.epi_ratio, item.epi_ratio_interval)} against {item.reference_id}"
            f" (J/token {_changed(item.joules_ratio, item.joules_ratio_interval)},"
            f" accuracy {_points(item.accuracy_difference, item.accuracy_difference_interval)})."
        )
        lost = item.accuracy_difference_interval
        if lost is not None and lost.high < 0:
            text += " The accuracy loss is real: weigh it for your use before you deploy."
        return Recommendation(configuration_id=better, sentence=text)
    if statistics.n_comparisons == 0:
        return Recommendation(
            configuration_id=None, sentence="No recommendation: no variant could be compared with its baseline."
        )
    worse = sum(item.comparison == "worse" for item in results.values())
    effects = [item.smallest_resolvable for item in results.values() if item.smallest_resolvable is not None]
    text = "Do not prune: no variant is established as better than its baseline"
    if worse:
        text += f", and {worse} of {statistics.n_comparisons} {'is' if worse == 1 else 'are'} worse"
    if effects:
        low, high = f"{min(effects):.1%}", f"{max(effects):.1%}"
        size = low if low == high else f"{low} to {high} (depending on the variant)"
        text += f". This campaign would have named a change of {size} or more with 80 % power"
    else:
        text += "; with one repetition the spread of the energy is unknown, so none can be"
    return Recommendation(configuration_id=None, sentence=text + ".")


def recommendation_of(data: CampaignResults) -> Recommendation:
    """Return what a campaign that was read from its files recommends."""
    return recommendation(data.statistics)


def answers_of(data: CampaignResults) -> tuple[ResearchAnswer, ...]:
    """Answer RQ1 to RQ5 for a campaign that was read from its files."""
    return research_answers(
        data.statistics, data.runs, data.shares, data.roofline,
        emulated=data.campaign.instrument.emulated, note=data.campaign.protocol.accuracy_note,
    )  # fmt: skip


def best_named(results: Mapping[str, ConfigurationResult]) -> str | None:
    """Return the configuration with the lowest EPI ratio among those named better."""
    better = [item for item in results.values() if item.comparison == "better" and item.epi_ratio is not None]
    return min(better, key=lambda item: item.epi_ratio or 1.0).configuration_id if better else None


def research_answers(
    statistics: CampaignStatistics,
    runs: Mapping[str, Sequence[RunEvaluation]],
    shares: Sequence[EnergyShares],
    fit: Roofline | None,
    *,
    emulated: bool,
    note: str,
) -> tuple[ResearchAnswer, ...]:
    """Answer RQ1 to RQ5; without comparable data every answer says so."""
    data, terms, draws = statistics.data, statistics.terms, statistics.draws
    none = "This campaign holds no comparable runs."
    if data is None or terms is None or draws is None:
        rq1 = rq2 = rq3 = none
    else:
        rq1 = _rq1(statistics, data, draws)
        rq2 = _rq2(data, terms, draws)
        rq3 = _rq3(statistics)
    return (
        ResearchAnswer(name="RQ1", question="Does dropping experts improve EPI, and how many?", answer=rq1),
        ResearchAnswer(name="RQ2", question="Which layers should lose experts: all, early or late?", answer=rq2),
        ResearchAnswer(name="RQ3", question="Is the most accurate configuration the most efficient?", answer=rq3),
        ResearchAnswer(name="RQ4", question="Where does the energy go?", answer=_rq4(shares, fit)),
        ResearchAnswer(
            name="RQ5", question="How far does the result reach?",
            answer=_rq5(statistics, runs, emulated=emulated, note=note),
        ),
    )  # fmt: skip


def _rq1(statistics: CampaignStatistics, data: CampaignData, draws: Draws) -> str:
    counts = {
        verdict: sum(item.comparison == verdict for item in statistics.results.values())
        for verdict in ("better", "worse", "not distinguishable")
    }
    if statistics.spread.cv is None:
        return "Not answerable: with one repetition the spread of the energy is unknown."
    text = (
        f"Of {statistics.n_comparisons} variants {counts['better']} are better than the baseline of their layout,"
        f" {counts['worse']} worse, {counts['not distinguishable']} not distinguishable (Holm-corrected, 5 %)."
    )
    named = best_named(statistics.results)
    if named is not None:
        item = statistics.results[named]
        text += f" Best: {named}, EPI {_changed(item.epi_ratio, item.epi_ratio_interval)}."
    points = [operating_point(data, draws, series) for series in all_series(data)]
    chances = [
        f"{point.group}: {point.most_probable} ({max(chance.probability for chance in point.chances):.0%})"
        for point in points
        if point is not None
    ]
    if chances:
        text += f" Most probable operating point per group: {', '.join(chances)}."
    return text


def _rq2(data: CampaignData, terms: RatioTerms, draws: Draws) -> str:
    found = {series.group: series for series in all_series(data)}
    if len(found) < 2:
        return "Not answerable: only one layer group was measured."
    if not np.isfinite(draws.log_epi_ratio).all():
        return "Not answerable: with one repetition the spread of the energy is unknown."
    texts = []
    pairs: tuple[tuple[LayerGroup, LayerGroup], ...] = (("late", "early"), ("all", "early"), ("all", "late"))
    for first, second in pairs:
        one, two = found.get(first), found.get(second)
        if one is None or two is None:
            continue
        depths = sorted(set(one.depths) & set(two.depths) - {0})
        if not depths:
            continue
        rows = [one.rows[one.depths.index(d)] for d in depths] + [two.rows[two.depths.index(d)] for d in depths]
        weights = np.repeat([1.0, -1.0], len(depths)) / len(depths)
        value, error = contrast(draws, terms.value, rows, weights)
        low, high = value - 1.96 * error, value + 1.96 * error
        relation = "better than" if high < 0 else "worse than" if low > 0 else "not distinguishable from"
        texts.append(
            f"{first} is {relation} {second} (mean EPI ratio over depths {depths[0]}..{depths[-1]}:"
            f" {change_of_log(value)} [{change_of_log(low)}, {change_of_log(high)}])"
        )
    if not texts:
        return "Not answerable: the groups share no depth."
    text = "; ".join(texts)
    return f"{text[0].upper()}{text[1:]}."


def _rq3(statistics: CampaignStatistics) -> str:
    known = [item for item in statistics.results.values() if item.epi_ratio is not None]
    if len(known) < 2:
        return "Not answerable: no variant could be compared."
    accurate = max(known, key=lambda item: item.accuracy_difference or 0.0)
    efficient = min(known, key=lambda item: item.epi_ratio or 1.0)
    text = (
        f"Highest accuracy relative to its baseline: {accurate.configuration_id}"
        f" ({_points(accurate.accuracy_difference, accurate.accuracy_difference_interval)}); lowest EPI ratio:"
        f" {efficient.configuration_id} (EPI {_changed(efficient.epi_ratio, efficient.epi_ratio_interval)},"
        f" accuracy {_points(efficient.accuracy_difference, efficient.accuracy_difference_interval)})."
    )
    if efficient.comparison not in ("better", "reference"):
        text += " Neither is established as better than the baseline, so the order may be chance."
    return text


def _rq4(shares: Sequence[EnergyShares], fit: Roofline | None) -> str:
    if not shares:
        return "Not answerable: no idle power was measured."
    first = shares[0]
    text = (
        f"In {first.configuration_id}, {first.static_share:.0%} of the headline energy is static (idle power x time,"
        f" {number(first.static_joules_per_token, 3)} J/token) and {1 - first.static_share:.0%} dynamic"
        f" ({number(first.dynamic_joules_per_token, 3)} J/token)."
    )
    if len(shares) > 1:
        low, high = min(s.static_share for s in shares), max(s.static_share for s in shares)
        text += f" Over all configurations the static share runs from {low:.0%} to {high:.0%}."
    if fit is None:
        return text + (
            " Compute and bandwidth cannot be told apart here: the campaign varies neither active experts nor"
            " quantisation enough, and pruning depth changes neither."
        )
    return text + (
        f" Time per token: {fit.overhead_s:.3g} s overhead, {fit.compute_s_per_expert:.3g} s per active expert, and"
        f" {fit.bandwidth_s_per_expert_bit:.3g} s per expert and bit of a weight"
        f" ({fit.n_points} configurations, residual {fit.relative_residual:.1%})."
    )


def _rq5(
    statistics: CampaignStatistics, runs: Mapping[str, Sequence[RunEvaluation]], *, emulated: bool, note: str
) -> str:
    verdicts = [run.validity.verdict for group in runs.values() for run in group]
    text = f"{len(verdicts)} runs: {verdicts.count('PASS')} PASS, {verdicts.count('FLAG')} FLAG, "
    text += f"{verdicts.count('FAIL')} FAIL."
    if emulated:
        text += " The power is emulated: energies and EPI are a rehearsal and say nothing about hardware."
    if note:
        text += f" Accuracy: {note}."
    data = statistics.data
    if data is not None and statistics.spread.cv is not None:
        effects = [x.smallest_resolvable for x in statistics.results.values() if x.smallest_resolvable is not None]
        if effects:
            text += f" Changes of EPI below {float(np.median(effects)):.1%} (median) would have stayed unseen."
    return text + " One model, one cluster, one surgery method: other models need their own campaign."


def _changed(ratio: float | None, interval: Interval | None) -> str:
    if ratio is None:
        return "unknown"
    return change(ratio) + ("" if interval is None else f" [{change(interval.low)}, {change(interval.high)}]")


def _points(difference: float | None, interval: Interval | None) -> str:
    if difference is None:
        return "unknown"
    text = f"{100 * difference:+.1f} points"
    return text + ("" if interval is None else f" [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]")
