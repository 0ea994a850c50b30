"""Hypotheses, operating points, Pareto, decomposition and the recommendation on campaigns with known truth."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from orchestrator.domain.analysis.bootstrap import joint_draws
from orchestrator.domain.analysis.budget import Component, combine
from orchestrator.domain.analysis.curve import all_series, operating_point, series_of
from orchestrator.domain.analysis.decomposition import EnergyShares, roofline
from orchestrator.domain.analysis.hypotheses import hypothesis_tests, two_lines
from orchestrator.domain.analysis.paired import ratio_terms
from orchestrator.domain.analysis.pareto import frontier, pareto_points
from orchestrator.domain.campaign.matrix import full_matrix
from orchestrator.domain.campaign.serving import MatrixOptions
from orchestrator.reports.hypotheses import hypotheses
from orchestrator.reports.research_questions import answers_of, recommendation_of
from orchestrator.results.read_model import CampaignResults, load_results
from shared.kernel.records import Configuration
from tests.support.epi_campaign import write_campaign_tree


@pytest.fixture(scope="module")
def useless(tmp_path_factory: pytest.TempPathFactory) -> CampaignResults:
    """Dropping saves nothing and costs accuracy."""
    return load_results(write_campaign_tree(tmp_path_factory.mktemp("useless"), saving=0.0))


@pytest.fixture(scope="module")
def useful(tmp_path_factory: pytest.TempPathFactory) -> CampaignResults:
    """Each expert dropped saves 3 % of the dynamic power; late layers lose least."""
    return load_results(write_campaign_tree(tmp_path_factory.mktemp("useful"), saving=0.03))


def test_one_question_a_task_has_no_interval_and_no_verdict(tmp_path: Path) -> None:
    """A single cluster says nothing about its spread: unknown, with the reason, and not a failure."""
    few = load_results(write_campaign_tree(tmp_path, "baseline,drop1_all", repetitions=2, per_task=1))
    for result in few.results.values():
        assert result.epi_ratio_interval is None and result.comparison not in ("better", "worse")
        assert result.budget is not None and result.budget.reason == "unknown: questions"


def test_no_saving_ends_in_do_not_prune(useless: CampaignResults) -> None:
    assert recommendation_of(useless).configuration_id is None
    assert "Do not prune" in recommendation_of(useless).sentence
    assert all(result.comparison != "better" for result in useless.results.values())
    answers = {item.name: item.answer for item in hypotheses(useless.hypotheses)}
    assert answers["H1"] != "supported" and answers["H2"] != "supported" and answers["H4"] == "open"


def test_a_real_optimum_is_named_with_its_price(useful: CampaignResults) -> None:
    best = recommendation_of(useful).configuration_id
    assert best is not None and best.endswith("_late")
    result = useful.results[best]
    assert result.comparison == "better" and result.adjusted_p_value is not None and result.adjusted_p_value < 0.05
    assert result.epi_ratio_interval is not None and result.epi_ratio_interval.high < 1
    answers = {item.name: item.answer for item in hypotheses(useful.hypotheses)}
    assert answers["H2"] == "supported" and answers["H3"] == "supported"


def test_true_energy_ratios_lie_in_their_intervals(useful: CampaignResults) -> None:
    """1 - 0.03 depth of the dynamic power: gross power 12 + 30 (1 - 0.03 d) W in the decode window."""
    inside = []
    for item in useful.configurations:
        interval = useful.results[item.id].joules_ratio_interval
        if interval is not None:
            inside.append(interval.low <= (12 + 30 * (1 - 0.03 * item.depth)) / 42 <= interval.high)
    assert len(inside) == 24 and sum(inside) >= 20


def test_probabilities_add_up_and_favour_the_truth(useful: CampaignResults) -> None:
    assert {point.group for point in useful.operating_points} == {"all", "early", "late"}
    for point in useful.operating_points:
        assert sum(chance.probability for chance in point.chances) == pytest.approx(1)
    assert sum(chance.probability for chance in useful.best_chances) == pytest.approx(1)
    late = next(point for point in useful.operating_points if point.group == "late")
    assert late.probability_interior > 0.5


def test_two_lines_sees_a_u_and_no_u_in_a_slope(useful: CampaignResults) -> None:
    data = useful.statistics.data
    assert data is not None
    series = series_of(data, "late")
    assert series is not None
    depths = np.array(series.depths, dtype=float)
    draws = joint_draws(data)
    for shape, u_shaped in (((depths - 4) ** 2 * 0.02, True), (depths * 0.02, False), (-depths * 0.02, False)):
        log_j = data.log_j.copy()
        log_j[list(series.rows)] = shape[:, None] + np.random.default_rng(0).normal(0, 0.001, log_j[0].shape)
        sums = np.tile(data.sums[0], (len(data.configurations), 1))
        changed = type(data)(**{**data.__dict__, "log_j": log_j, "sums": sums})
        terms = ratio_terms(log_j, sums, data.reference, data.design)
        lines = two_lines(series, terms, joint_draws(changed))
        assert lines is not None and (lines.p_value < 0.05) == u_shaped
    assert operating_point(data, draws, series) is not None


def test_fewer_questions_give_wider_answers_and_one_repetition_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("once")
    data = load_results(write_campaign_tree(root, "drop1_all,drop8_all", repetitions=1, per_task=40, saving=0.03))
    assert data.statistics.spread.cv is None
    assert data.results["drop8_all"].comparison == "unknown"
    assert "one repetition" in data.results["drop8_all"].reason
    assert data.results["drop8_all"].accuracy_difference_interval is not None
    assert not data.operating_points and not data.best_chances
    assert {item.answer for item in hypotheses(data.hypotheses)} == {"not measured"}
    assert len(answers_of(data)) == 5 and data.validity.verdict == "FLAG"


def test_hypotheses_do_not_depend_on_order(useful: CampaignResults) -> None:
    data, terms, draws = useful.statistics.data, useful.statistics.terms, useful.statistics.draws
    assert data is not None and terms is not None and draws is not None
    assert hypothesis_tests(data, terms, draws) == useful.hypotheses
    assert [series.group for series in all_series(data)] == ["all", "early", "late"]


points = arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1))


@given(points)
def test_frontier_is_exactly_the_undominated(joules: np.ndarray) -> None:
    accuracy = np.random.default_rng(joules.size).uniform(size=joules.size).round(1)
    on = frontier(joules, accuracy)
    assert on.any()
    for i in range(joules.size):
        no_worse = (joules <= joules[i]) & (accuracy >= accuracy[i])
        dominated = bool((no_worse & ((joules < joules[i]) | (accuracy > accuracy[i]))).any())
        assert on[i] == (not dominated)


def test_pareto_points_have_ellipses(useful: CampaignResults) -> None:
    data, terms, draws = useful.statistics.data, useful.statistics.terms, useful.statistics.draws
    assert data is not None and terms is not None and draws is not None
    found = {point.configuration_id: point for point in pareto_points(data, draws, terms.energy)}
    assert found["drop8_late"].on_frontier and not found["drop5_all"].on_frontier
    assert found["drop8_late"].half_width_joules and found["drop8_late"].half_width_accuracy > 0


def test_roofline_is_recovered_where_k_and_quantisation_vary() -> None:
    truth = (0.004, 0.0007, 0.0002)
    items, shares = [], []
    for quantization, bits in (("Q4_K_M", 4.85), ("Q8_0", 8.5), ("F16", 16.0)):
        for k in (2, 4, 8):
            base = full_matrix(MatrixOptions(quantization=quantization, experts_per_token=k))[0]
            item = Configuration.model_validate({**base.model_dump(), "id": f"k{k}_{quantization.lower()}"})
            seconds = truth[0] + truth[1] * k + truth[2] * k * bits
            items.append(item)
            shares.append(
                EnergyShares(
                    configuration_id=item.id, static_joules_per_token=1, dynamic_joules_per_token=2, static_share=1 / 3,
                    seconds_per_token=seconds,
                )
            )  # fmt: skip
    fit = roofline(shares, items, None)
    assert fit is not None and fit.relative_residual < 1e-9
    assert (fit.overhead_s, fit.compute_s_per_expert, fit.bandwidth_s_per_expert_bit) == pytest.approx(truth, rel=1e-6)
    assert roofline(shares[:3], items, None) is None, "one quantisation cannot tell compute from bandwidth"


def test_static_and_dynamic_energy_add_up_to_the_bill(useful: CampaignResults) -> None:
    gross = {name: result.joules_per_token for name, result in useful.results.items()}
    for share in useful.shares:
        total = share.static_joules_per_token + share.dynamic_joules_per_token
        assert total == pytest.approx(gross[share.configuration_id], rel=0.01)
    rising = [share.static_share for share in useful.shares if share.configuration_id.endswith("_all")]
    assert all(a <= b + 0.003 for a, b in pairwise(rising)), "less dynamic power leaves a larger static share"


def test_gum_example_of_combination() -> None:
    """JCGM 100 H.1-like: root sum of squares, Welch-Satterthwaite, t factor."""
    parts = [
        Component(name="a", kind="A", relative=0.03, degrees_of_freedom=4),
        Component(name="b", kind="B", relative=0.04),
        Component(name="c", kind="A", relative=9.0, counted=False),
    ]
    total = combine(parts)
    assert total.combined == pytest.approx(0.05)
    assert total.degrees_of_freedom == pytest.approx(0.05**4 / (0.03**4 / 4))
    assert combine([*parts, Component(name="d", kind="B", relative=None)]).reason == "unknown: d"


def test_budget_and_bootstrap_agree_on_epi_itself(useful: CampaignResults) -> None:
    for result in useful.results.values():
        drawn, own = result.epi_interval_bootstrap, result.budget
        assert drawn is not None and own is not None and own.combined is not None and own.coverage_factor is not None
        instrument = next(part.relative for part in own.components if part.name == "instrument")
        without = 2 * own.coverage_factor * (own.combined**2 - (instrument or 0) ** 2) ** 0.5
        assert np.log(drawn.high / drawn.low) == pytest.approx(without, rel=0.25), result.configuration_id
        assert drawn.low < (result.epi or 0) < drawn.high


def test_methods_are_compared_at_equal_depth(tmp_path: Path) -> None:
    data = load_results(write_campaign_tree(tmp_path, "drop4_all,drop4_all.reap,drop4_all.ean,drop2_all.reap"))
    pairs = {(pair.first, pair.second): pair for pair in data.method_pairs}
    assert set(pairs) == {
        ("drop4_all", "drop4_all.ean"), ("drop4_all", "drop4_all.reap"), ("drop4_all.ean", "drop4_all.reap"),
    }  # fmt: skip
    for pair in pairs.values():
        assert pair.interval[0] <= pair.log_epi_ratio <= pair.interval[1]
        assert (pair.adjusted_p_value < 0.05) == (pair.comparison != "not distinguishable")
    assert load_results(data.folder).method_pairs == data.method_pairs, "the same files say the same"
