"""Power, sequential boundaries, planner: published values and consistency with one another."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from orchestrator.cli.plan import app as plan_app
from orchestrator.domain.analysis.interim import analyse_interim
from orchestrator.domain.campaign.design_power import Expectation, power, questions_needed, resolution
from orchestrator.domain.campaign.planner import PlanRequest, plan, propose
from orchestrator.domain.campaign.protocol import PUBLISHED_FIELDS
from orchestrator.domain.campaign.rates import Rates
from orchestrator.domain.campaign.sequential import StoppingRule, decide, established, nominal_levels
from orchestrator.results.read_model import load_results
from shared.kernel.errors import ConfigurationError
from tests.support.epi_campaign import write_campaign_tree

WEIGHTS = dict.fromkeys(PUBLISHED_FIELDS, 1 / 3)
SUITES = dict(zip(PUBLISHED_FIELDS, (14_042, 1_172, 10_042), strict=True))


def z_of(levels: tuple[float, ...]) -> list[float]:
    return [float(stats.norm.isf(p / 2)) for p in levels]


def test_lan_demets_boundaries_as_published() -> None:
    """Two-sided 5 %, O'Brien-Fleming-like spending, equal looks (Jennison and Turnbull 2000; ldbounds)."""
    assert z_of(nominal_levels((0.5, 1.0), 0.05)) == pytest.approx([2.9626, 1.9686], abs=2e-4)
    five = nominal_levels((0.2, 0.4, 0.6, 0.8, 1.0), 0.05)
    assert z_of(five) == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=3e-4)
    assert nominal_levels((1.0,), 0.05) == pytest.approx((0.05,))


def test_boundaries_hold_the_error_of_a_simulated_path() -> None:
    rng = np.random.default_rng(1)
    times = np.array([0.3, 0.5, 0.8, 1.0])
    path = np.cumsum(rng.normal(0, np.sqrt(np.diff(times, prepend=0)), (400_000, 4)), -1) / np.sqrt(times)
    crossed = (np.abs(path) > z_of(nominal_levels(tuple(times), 0.05))).any(-1).mean()
    assert crossed == pytest.approx(0.05, abs=0.0015)


def test_established_takes_holms_steps() -> None:
    rule = StoppingRule(information=(1.0,))
    assert established(np.array([0.01, 0.03, 0.2]), 0, rule).tolist() == [True, False, False]
    assert established(np.array([0.01, 0.024, 0.04]), 0, rule).tolist() == [True, True, True]


def test_decisions_stop_for_their_reasons() -> None:
    rule = StoppingRule(information=(0.5, 1.0), target_half_width=0.02)
    assert decide([0.5, 0.5], [0.1, 0.1], 0, rule).reason == "go on"
    assert decide([0.5, 0.5], [0.01, 0.02], 0, rule).reason == "precise enough"
    assert decide([1e-6, 1e-6], [0.1, 0.1], 0, rule).reason == "every comparison is decided"
    last = decide([0.5, 0.5], [0.1, 0.1], 1, rule, earlier=(True, False))
    assert (last.reason, last.named) == ("last analysis", (True, False))


@pytest.mark.parametrize(("effect", "published"), [(0.01, 8010), (0.02, 2003), (0.05, 321)])
def test_questions_needed_as_in_the_method(effect: float, published: int) -> None:
    """One comparison, A = 0.7, d = 5 %, energies exact: (z.975 + z.8)^2 d / (A^2 effect^2) questions."""
    expected = Expectation(cv=0.0, accuracy=0.7, discordance=0.05, comparisons=1)
    needed = questions_needed(effect, {"mmlu_5shot": 1.0}, 3, expected)
    assert needed is not None
    # The published figures put the effect itself for -ln(1 - effect): up to 5 % more questions at 5 %.
    assert needed["mmlu_5shot"] == pytest.approx(published, rel=0.06)


def test_power_and_resolution_are_two_sides_of_one_thing() -> None:
    expected = Expectation(comparisons=24)
    found = resolution(dict.fromkeys(PUBLISHED_FIELDS, 400), WEIGHTS, 3, expected)
    assert power(found.smallest_effect, found, 24) == pytest.approx(0.8, abs=0.01)
    assert power(0.0, found, 24) == pytest.approx(0.05 / 24 / 2, rel=0.01)
    assert questions_needed(0.001, WEIGHTS, 2, Expectation(cv=0.05)) is None


RATES = Rates(
    seconds_per_question=dict.fromkeys(PUBLISHED_FIELDS, 2.0), prefix_seconds=100, fixed_seconds=1200,
    surgery_seconds=60, idle_watts=14, active_watts=40,
    base_bytes=18_290_000_000, f16_bytes=61_000_000_000, nodes=4, sample_rate_hz=10,
)  # fmt: skip


def request(repetitions: int = 3, n: int = 500) -> PlanRequest:
    questions = dict.fromkeys(PUBLISHED_FIELDS, n)
    return PlanRequest(configurations=26, repetitions=repetitions, questions=questions, weights=WEIGHTS, rates=RATES)


def test_plan_adds_up() -> None:
    made = plan(request())
    assert made.run_seconds == 1200 + 100 + 3000
    assert made.duration_seconds == 78 * 4300 + 26 * 60
    assert made.energy_joules == 78 * 4300 * 40 + 26 * 60 * 14
    assert made.resolution is not None and made.stopping is not None and not made.warnings
    once = plan(request(repetitions=1))
    assert once.resolution is None and "one repetition" in once.warnings[0]


def test_proposal_resolves_its_target_within_the_suites() -> None:
    found = propose(request(), 0.03, SUITES)
    assert found is not None and found.power >= 0.8
    assert all(n <= SUITES[name] for name, n in found.plan.questions.items())
    assert found.plan.resolution is not None and found.plan.resolution.smallest_effect <= 0.031
    assert propose(request(), 0.001, SUITES) is None


def test_a_look_at_a_running_campaign(tmp_path: Path) -> None:
    data = load_results(write_campaign_tree(tmp_path, "drop1_all,drop8_all", repetitions=2, saving=0.03))
    running = analyse_interim(data.statistics, 4)
    assert (running.repetitions_done, running.stop, running.reason) == (2, False, "go on")
    assert running.established == ("drop8_all",), "a large loss is established even at the first, strict look"
    assert analyse_interim(data.statistics, 4, target_half_width=0.5).reason == "precise enough"
    assert analyse_interim(data.statistics, 2).reason == "last analysis"
    with pytest.raises(ConfigurationError):
        analyse_interim(data.statistics, 1)
    shown = CliRunner().invoke(plan_app, ["--interim", str(tmp_path)])
    assert shown.exit_code == 0 and "may stop" in shown.output
