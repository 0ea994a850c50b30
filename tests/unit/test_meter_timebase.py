"""The clock fit: drift within 10 ppm, no bend, strictly increasing, whatever the host's scheduling does."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_bridge.timing.timebase import TimeBase, fit_clock

NS = 1_000_000_000


def late(chance: random.Random, busy: float) -> float:
    """Delay of a line in seconds: 3 ms of UART, scheduling of a busy host, now and then a long stall."""
    delay = 0.003 + chance.expovariate(1 / 0.004)
    return delay + (chance.uniform(0.05, 1.5) if chance.random() < busy else 0.0)


def run(drift_ppm: float, seconds: int, rate: float, seed: int, busy: float) -> tuple[TimeBase, list[float]]:
    """Feed a device whose clock runs `drift_ppm` fast; return the time base and fitted minus true host time."""
    chance = random.Random(seed)
    start = 5_000 * NS
    base: TimeBase | None = None
    errors = []
    for number in range(int(seconds * rate)):
        true_s = number / rate
        ms = int(true_s * (1 + drift_ppm * 1e-6) * 1000) + 77_000
        arrival = start + round((true_s + late(chance, busy)) * NS)
        base = base or TimeBase(ms, arrival)
        errors.append((base.add(ms, arrival) - start) / NS - true_s)
    assert base is not None
    return base, errors


@pytest.mark.parametrize("drift_ppm", [-200.0, -35.0, 0.0, 50.0, 200.0])
@pytest.mark.parametrize("busy", [0.0, 0.2])
def test_drift_is_recovered_within_10_ppm(drift_ppm: float, busy: float) -> None:
    base, errors = run(drift_ppm, 120, 10, seed=3, busy=busy)
    # delay = host - device, so the host gains on a device by minus the device's drift.
    found_ppm = -base.fit.drift * 1e6
    assert abs(found_ppm - drift_ppm) < 10
    # The uncertainty is honest: the truth lies within a few of it.
    assert abs(found_ppm - drift_ppm) < 5 * base.fit.drift_uncertainty * 1e6 + 1
    assert np.ptp(errors[300:]) < 0.02


@pytest.mark.parametrize("drift_ppm", [7.0, -3.0, 1.0, 12.0])
def test_a_counter_of_milliseconds_that_hardly_moves_is_not_believed_too_much(drift_ppm: float) -> None:
    for phase in range(6):
        base = TimeBase(0, 0)
        for number in range(1800):
            at_s = number / 10 + phase * 1.7e-4
            base.add(int(at_s * (1 + drift_ppm * 1e-6) * 1000), round((at_s + 1e-4) * NS))
        error_ppm = -base.fit.drift * 1e6 - drift_ppm
        assert abs(error_ppm) < 10
        assert abs(error_ppm) < 3 * base.fit.drift_uncertainty * 1e6


@given(st.floats(-300, 300), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_fitted_times_increase_strictly(drift_ppm: float, seed: int) -> None:
    base, errors = run(drift_ppm, 40, 20, seed, busy=0.3)
    fitted = [error + number / 20 for number, error in enumerate(errors)]
    assert all(b > a for a, b in itertools.pairwise(fitted))
    assert base.fit.jitter_s >= 0


def test_a_stall_of_a_minute_does_not_bend_the_line() -> None:
    start, base, fitted = 10 * NS, None, []
    for number in range(3000):
        true_s = number / 10
        # Between 120 s and 180 s the host reads nothing: the lines of that time come together at its end.
        arrival_s = max(true_s + 0.004, 180.0 if 120 <= true_s < 180 else 0.0)
        base = base or TimeBase(0, start)
        fitted.append((base.add(number * 100, start + round(arrival_s * NS)) - start) / NS)
    assert np.abs(np.asarray(fitted) - np.arange(3000) / 10).max() < 0.006


def test_residual_tells_a_stepped_device_clock() -> None:
    base, _ = run(20.0, 30, 10, seed=1, busy=0.0)
    assert base.residual_s(77_000 + 30_000, 5_000 * NS + 30 * NS) == pytest.approx(0, abs=0.02)
    assert base.residual_s(77_000 + 35_000, 5_000 * NS + 30 * NS) == pytest.approx(-5, abs=0.02)


def test_fit_of_few_points_claims_no_drift() -> None:
    fit = fit_clock(np.arange(5.0), np.array([0.01, 0.02, 0.01, 0.03, 0.01]))
    assert fit.drift == 0
    assert fit.drift_uncertainty >= 1e-3
