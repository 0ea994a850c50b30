"""The estimator: known answers, properties, agreement of delta method and bootstrap, and a small simulation study."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.domain.analysis.bootstrap import joint_draws
from orchestrator.domain.analysis.campaign_data import CampaignData
from orchestrator.domain.analysis.paired import (
    QuestionDesign,
    accuracies,
    energy_ratio,
    energy_spread,
    holm,
    influences,
    ratio_terms,
    satterthwaite,
)
from orchestrator.domain.arrays import median_factor
from orchestrator.domain.campaign.matrix import full_matrix, reference_of
from tests.bench.epi_study import Truth, predicted_power, sequential_study, simulate, study

ZERO = np.zeros(3, dtype=np.int64)


def design(n: int = 50) -> QuestionDesign:
    return QuestionDesign(np.ones(2 * n), np.repeat([0, 1], n), np.array([0.5, 0.5]))


def test_variance_of_the_median() -> None:
    rng = np.random.default_rng(2)
    for n in (1, 2, 3, 4, 5, 6, 7, 12):
        drawn = np.median(rng.standard_normal((200_000, n)), -1)
        assert drawn.var() * n == pytest.approx(median_factor(n), rel=0.02), n
    assert median_factor(500) == pytest.approx(np.pi / 2)


def test_satterthwaite_known_answers() -> None:
    assert satterthwaite(np.array([4.0, 0.0]), np.array([7.0, 3.0])) == pytest.approx(7)
    assert satterthwaite(np.array([1.0, 1.0]), np.array([5.0, 5.0])) == pytest.approx(10)
    assert np.isinf(satterthwaite(np.array([0.0]), np.array([3.0])))


def test_block_drift_cancels_in_ratio_and_spread() -> None:
    rng = np.random.default_rng(1)
    log_j = np.array([[0.0], [-0.05], [0.02]]) + rng.normal(0, 0.01, (3, 4))
    drift = np.array([0.0, 0.5, -0.3, 2.0])
    assert energy_ratio(log_j + drift, ZERO)[0] == pytest.approx(energy_ratio(log_j, ZERO)[0], abs=1e-12)
    assert energy_spread(log_j + drift)[0] == pytest.approx(energy_spread(log_j)[0], rel=1e-9)


def test_missing_runs_are_left_out_and_balanced_data_agree() -> None:
    rng = np.random.default_rng(4)
    log_j = rng.normal(0, 0.01, (4, 3))
    variance, freedom = energy_spread(log_j)
    holed = np.hstack([log_j, np.full((4, 1), np.nan)])
    again, freedom_again = energy_spread(holed)
    assert (float(again), freedom_again) == (pytest.approx(float(variance)), freedom)
    holed[1, 0] = np.nan
    assert energy_spread(holed)[1] == freedom - 1
    assert energy_ratio(holed, np.zeros(4, dtype=np.int64))[1].tolist() == [3, 2, 3, 3]
    assert np.isnan(energy_spread(np.zeros((3, 1)))[0])
    running = np.array([[0.0, 0.02, 0.01], [0.3, np.nan, np.nan]])
    assert energy_spread(running) == (pytest.approx(0.0001), 2.0), "one configuration was repeated: that is something"


def test_mcnemar_is_the_special_case_of_one_field() -> None:
    """Var of ln(A1/A2) from b and c discordant questions, by hand."""
    n, b, c = 400, 30, 10
    one, two = np.zeros(n), np.zeros(n)
    one[:200], two[:200] = 1, 1
    one[200 : 200 + b] = 1
    two[200 + b : 200 + b + c] = 1
    single = QuestionDesign(np.ones(n), np.zeros(n, dtype=np.int64), np.array([1.0]))
    a1, a2 = one.mean(), two.mean()
    terms = ratio_terms(np.zeros((2, 2)), np.stack([one, two]), np.zeros(2, dtype=np.int64), single)
    u = (two - a2) / a2 - (one - a1) / a1
    assert terms.accuracy[1] == pytest.approx(np.log(a2 / a1))
    assert terms.accuracy_variance[1] == pytest.approx(u.var(ddof=1) / n, rel=1e-9)


def test_identical_answers_do_not_prove_identical_accuracy() -> None:
    sums = np.tile((np.arange(100) % 3 > 0).astype(float), (3, 1))
    terms = ratio_terms(np.zeros((3, 3)), sums, ZERO, design())
    assert terms.accuracy[1] == 0 and terms.accuracy_variance[1] > 0
    assert terms.variance[0] == 0, "the reference against itself"


def test_influences_add_up_to_zero_and_predict_a_changed_answer() -> None:
    rng = np.random.default_rng(3)
    sums = (rng.uniform(size=(2, 100)) < 0.7).astype(float)
    pull = influences(sums, design())
    assert pull.sum(-1) == pytest.approx(0, abs=1e-12)
    at = int(np.flatnonzero(sums[0] == 1)[0])
    changed = sums.copy()
    changed[0, at] = 0
    before, after = accuracies(sums, design())[0][0], accuracies(changed, design())[0][0]
    assert before - after == pytest.approx(design().coefficients[at])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_between_raw_and_bonferroni_and_keeps_order(values: list[float]) -> None:
    p = np.array(values)
    adjusted = holm(p, np.ones(p.size, dtype=bool))
    assert np.all(adjusted >= p) and np.all(adjusted <= np.minimum(p * p.size, 1) + 1e-12)
    assert np.all(np.diff(adjusted[np.argsort(p)]) >= 0)


def test_holm_known_answer() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.5])
    family = np.array([True, True, True, True, False])
    assert holm(p, family).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02, 1.0])


def campaign(truth: Truth, seed: int) -> CampaignData:
    log_j, sums = next(simulate(truth, 1, seed))
    items = [c for c in full_matrix() if c.group == "all" and c.layout == "uniform"]
    names = [item.id for item in items]
    return CampaignData(
        configurations=tuple(items), reference=np.array([names.index(reference_of(i)) for i in items]), log_j=log_j[0],
        net_log_j=log_j[0], sums=sums[0], design=truth.design, fields=("mmlu_5shot",), clusters=(), barred={},
    )  # fmt: skip


def test_bootstrap_and_delta_method_agree() -> None:
    ratios = []
    for seed in range(3):
        data = campaign(Truth(discordance=0.1), seed)
        terms = ratio_terms(data.log_j, data.sums, data.reference, data.design)
        low, high = joint_draws(data, draws=4000).interval()
        one, two = terms.interval()
        ratios.append((high - low)[1:] / (two - one)[1:])
        assert (low + high)[1:] / 2 == pytest.approx(terms.value[1:], abs=0.004)
    assert 0.9 < float(np.mean(ratios)) < 1.05
    data = campaign(Truth(), 1)
    assert np.array_equal(joint_draws(data).log_epi_ratio, joint_draws(data).log_epi_ratio), "seeded"


def test_ratios_along_a_chain_of_references_multiply() -> None:
    """Configurations of different references are compared through the one that all have in the end."""
    data = campaign(Truth(discordance=0.1), 5)
    chained = replace(data, reference=np.array([0, 0, 1, 2, 0, 4, 6, 6, 6]))
    assert chained.root.tolist() == [0, 0, 0, 0, 0, 0, 6, 6, 6]
    own = ratio_terms(data.log_j, data.sums, chained.reference, data.design)
    direct = ratio_terms(data.log_j, data.sums, chained.root, data.design)
    assert chained.to_root(own.accuracy) == pytest.approx(direct.accuracy, abs=1e-12)
    roots = np.log([1.0, 2, 6, 24, 3, 15, 1, 5, 7])
    assert np.exp(chained.to_root(roots - roots[chained.reference]))[:6] == pytest.approx([1.0, 2, 6, 24, 3, 15])


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10))
def test_the_unit_of_energy_does_not_matter(factor: float) -> None:
    data = campaign(Truth(questions=(57, 60, 60)), 2)
    one = ratio_terms(data.log_j, data.sums, data.reference, data.design)
    two = ratio_terms(data.log_j + np.log(factor), data.sums, data.reference, data.design)
    assert two.value == pytest.approx(one.value, abs=1e-9)
    assert two.variance == pytest.approx(one.variance, rel=1e-6)


def test_small_study_covers_and_holds_the_false_alarms() -> None:
    """2,000 campaigns; `make bench` does 10,000 with tighter budgets (2 standard errors here: 0.4 % and 0.9 %)."""
    found = study(Truth(), 2000, 21)
    assert 0.94 <= found.coverage <= 0.96
    assert found.any_claim <= 0.055


def test_small_study_finds_a_planted_optimum_as_often_as_promised() -> None:
    energy = (0.0,) * 4 + (float(np.log(0.95)),) + (0.0,) * 4
    truth = Truth(questions=(342, 200, 200), log_energy=energy)
    assert float(study(truth, 2000, 22).claims[4]) == pytest.approx(predicted_power(truth, 0.05), abs=0.05)


def test_small_study_of_sequential_stopping() -> None:
    assert sequential_study(Truth(repetitions=5, questions=(171, 100, 100)), 1500, 23) <= 0.055
