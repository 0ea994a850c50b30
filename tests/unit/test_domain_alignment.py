"""Integration has known answers, refuses what it cannot know, and finds the lag."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.run.alignment import Trace, combine_lags, fit_lag, gaps, integrate, shift_window
from orchestrator.domain.run.records import MarkerLoad
from shared.kernel.records import Window
from tests.support.domain_lab import T0, at, block, traces_of


def trace(times_s: list[float], watts: list[float]) -> Trace:
    return Trace("n1", np.array([at(t) for t in times_s], dtype=np.int64), np.array(watts, dtype=np.float64))


def energy(source: Trace, start_s: float, end_s: float, limit: float = 2.0) -> float:
    result = integrate(source, at(start_s), at(end_s), limit)
    assert result.energy_j is not None, result.reason
    return result.energy_j


def test_constant_power_between_samples() -> None:
    source = trace([i * 0.1 for i in range(100)], [7.25] * 100)
    assert energy(source, 1.234, 5.6789) == pytest.approx(7.25 * (5.6789 - 1.234), rel=1e-12)


def test_ramp_is_exact_for_windows_that_start_between_samples() -> None:
    source = trace([i * 0.5 for i in range(21)], [2 + 3 * i * 0.5 for i in range(21)])
    a, b = 0.77, 9.13
    assert energy(source, a, b) == pytest.approx(2 * (b - a) + 1.5 * (b * b - a * a), rel=1e-9)


def test_window_shorter_than_the_sample_interval() -> None:
    source = trace([0, 1, 2], [10, 20, 10])
    assert energy(source, 0.25, 0.5) == pytest.approx(0.25 * (12.5 + 15) / 2, rel=1e-12)


def test_step_on_its_samples_and_sine_within_the_trapezoids_error() -> None:
    step = trace([0, 1, 2, 2.000000001, 3, 4], [5, 5, 5, 12, 12, 12])
    assert energy(step, 0.5, 3.5) == pytest.approx(5 * 1.5 + 12 * 1.5, rel=1e-8)
    times = [i * 0.02 for i in range(1001)]
    sine = trace(times, [8 + 3 * np.sin(2 * np.pi * 0.5 * t) for t in times])
    exact = 8 * 16 - 3 / np.pi * (np.cos(np.pi * 17) - np.cos(np.pi * 1))
    assert energy(sine, 1.0, 17.0) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [(-0.5, 1, "start"), (3, 4.5, "end"), (0.5, 3.5, "inside"), (1.5, 3.5, "at the start"), (0.5, 1.5, "at the end")],
)
def test_what_the_trace_does_not_cover_is_not_guessed(start: float, end: float, reason: str) -> None:
    source = trace([0, 0.5, 1, 3, 3.5, 4], [5] * 6)
    result = integrate(source, at(start), at(end), 1.0)
    assert result.energy_j is None
    assert reason in result.reason


def test_gaps_are_listed() -> None:
    source = trace([0, 0.5, 1, 3, 3.5, 6], [5] * 6)
    assert gaps(source, at(0.2), at(5), 1.0) == ((at(1), at(3)), (at(3.5), at(6)))
    assert gaps(source, at(0.2), at(0.9), 1.0) == ()


finite = st.floats(0, 1000, allow_nan=False)
watts = st.lists(finite, min_size=12, max_size=40)
inner = st.tuples(st.floats(0.1, 10.9), st.floats(0.1, 10.9), st.floats(0.1, 10.9)).map(sorted)


@given(watts, inner)
def test_adjacent_windows_add_up(values: list[float], edges: list[float]) -> None:
    source = trace([float(i) for i in range(len(values))], values)
    a, b, c = edges
    if at(a) < at(b) < at(c):
        assert energy(source, a, b) + energy(source, b, c) == pytest.approx(energy(source, a, c), rel=1e-9, abs=1e-9)


@given(watts, inner, st.integers(-(10**15), 10**15), st.floats(0.001, 1000))
def test_shift_invariance_and_unit_scaling(values: list[float], edges: list[float], shift: int, factor: float) -> None:
    source = trace([float(i) for i in range(len(values))], values)
    start, end = at(edges[0]), at(edges[2])
    if start >= end:
        return
    here = integrate(source, start, end, 2.0).energy_j
    moved = integrate(Trace("n1", source.utc_ns + shift, source.power_w), start + shift, end + shift, 2.0).energy_j
    scaled = integrate(Trace("n1", source.utc_ns, source.power_w * factor), start, end, 2.0).energy_j
    assert here is not None and moved == here
    assert scaled == pytest.approx(here * factor, rel=1e-9, abs=1e-12)


MARKER = MarkerLoad(node="n1", start_utc_ns=at(0), end_utc_ns=at(2.5), on=((at(0.5), at(1.0)), (at(1.5), at(2.0))))


def stepped(t: float) -> float:
    return 8.0 if 0.5 <= t < 1.0 or 1.5 <= t < 2.0 else (9.0 if t > 2.8 else 3.0)


@pytest.mark.parametrize("late", [-0.1, 0.0, 0.07, 0.35, 0.8, 1.2])
@pytest.mark.parametrize("hz", [10.0, 50.0])
def test_lag_of_a_marker_is_found(late: float, hz: float) -> None:
    rng = np.random.default_rng(7)
    source = traces_of(block({"n1": lambda t: stepped(t) + float(rng.normal(0, 0.2))}, 4, hz=hz, late_s=late))["n1"]
    fit = fit_lag(source, MARKER)
    assert fit.accepted, fit.reason
    assert fit.lag_s == pytest.approx(late, abs=3 * fit.uncertainty_s)
    assert fit.uncertainty_s < 1 / hz


def test_a_meter_that_averages_over_its_interval_is_half_an_interval_late() -> None:
    def averaged(t: float) -> float:
        return sum(stepped(t - 0.1 * (k + 0.5) / 50) for k in range(50)) / 50

    fit = fit_lag(traces_of(block({"n1": averaged}, 4, hz=10, late_s=0.033))["n1"], MARKER)
    assert fit.lag_s == pytest.approx(0.05 + 0.033, abs=0.01)


def test_a_marker_that_does_not_show_is_not_believed() -> None:
    rng = np.random.default_rng(3)
    source = traces_of(block({"n1": lambda t: 3.0 + float(rng.normal(0, 0.5))}, 4))["n1"]
    fit = fit_lag(source, MARKER)
    assert not fit.accepted and fit.lag_s == 0.0 and fit.reason
    assert not combine_lags([fit], (-0.25, 1.5)).accepted
    assert combine_lags([], (-0.25, 1.5)).uncertainty_s == pytest.approx(1.75 / 12**0.5)


def test_windows_move_by_the_lag_and_keep_their_length() -> None:
    moved = shift_window(Window(label="decode", start_utc_ns=T0, end_utc_ns=at(2)), 0.35)
    assert (moved.start_utc_ns, moved.duration_s) == (at(0.35), 2.0)
