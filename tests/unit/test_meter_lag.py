"""What the issue asks to be shown: a lag of 0..3 s and a drift of +-200 ppm, planted together, are both recovered.

The emulated meter measures a marker load with its late, drifting clock; its lines arrive over a jittery host; the
bridge's clock fit stamps them; the orchestrator's `fit_lag` finds the lag. Sizes: 20 ms and 10 ppm at 10 Hz.
"""

import random

import numpy as np
import pytest

from meter_bridge.protocol.frames import Frame
from meter_bridge.protocol.parser import LineParser
from meter_bridge.sources.emulator.device import DeviceSpec, EmulatedMeter
from meter_bridge.sources.emulator.faults import FaultPlan
from meter_bridge.sources.emulator.loads import ScheduleLoad
from meter_bridge.timing.timebase import TimeBase
from orchestrator.domain.run.alignment import LagFit, Trace, fit_lag
from orchestrator.domain.run.records import MarkerLoad

NS = 1_000_000_000
RATE = 10.0
BEFORE_S = 120.0
ON_S, OFF_S, CYCLES = 0.5, 0.5, 4
LINE_S = 0.003
"""The least time a line is under way in this simulation; no clock fit can tell it from the lag, so it is part of it."""


def measure(lag_s: float, drift_ppm: float, seed: int) -> tuple[float, LagFit]:
    """Return the drift found in ppm and the lag found."""
    chance = random.Random(seed)
    begin_s = 5000 + chance.random() / RATE
    on_s = BEFORE_S + chance.uniform(0, 1)
    # The schedule: idle, then the marker's steps, then idle for long.
    load = ScheduleLoad([(on_s, 3.2), *[(ON_S, 7.2), (OFF_S, 3.2)] * CYCLES, (1000.0, 3.2)], now_s=begin_s)
    spec = DeviceSpec(rate_hz=RATE, lag_s=lag_s, drift_ppm=drift_ppm, noise_w=0.05, seed=seed)
    meter = EmulatedMeter(spec, [load], FaultPlan(), begin_s)
    parser, base = LineParser(1), None
    times, watts = [], []
    at_s = begin_s
    while at_s < begin_s + on_s + CYCLES * (ON_S + OFF_S) + 8:
        # The device keeps its own schedule, a little unevenly.
        at_s += (1 + chance.gauss(0, 0.01)) / RATE
        for line in meter.lines(at_s):
            for item in parser.parse(line.rstrip()):
                if isinstance(item, Frame) and item.device_ms is not None:
                    arrival_ns = round((at_s + LINE_S + chance.expovariate(1 / 0.002)) * NS)
                    base = base or TimeBase(item.device_ms, arrival_ns)
                    times.append(base.add(item.device_ms, arrival_ns))
                    watts.append(item.power_w[0])
    assert base is not None
    start = round((begin_s + on_s - OFF_S) * NS)
    edges = [round((begin_s + on_s + number * (ON_S + OFF_S)) * NS) for number in range(CYCLES)]
    marker = MarkerLoad(
        node="node1", start_utc_ns=start, end_utc_ns=edges[-1] + round((ON_S + OFF_S) * NS),
        on=tuple((edge, edge + round(ON_S * NS)) for edge in edges),
    )  # fmt: skip
    trace = Trace("node1", np.asarray(times, dtype=np.int64), np.asarray(watts))
    return -base.fit.drift * 1e6, fit_lag(trace, marker, (-0.25, 3.5))


@pytest.mark.parametrize("drift_ppm", [-200.0, 0.0, 200.0])
@pytest.mark.parametrize("lag_s", [0.0, 0.3, 1.0, 2.05, 3.0])
def test_planted_lag_and_drift_are_recovered(lag_s: float, drift_ppm: float) -> None:
    for seed in range(3):
        found_ppm, lag = measure(lag_s, drift_ppm, seed)
        assert abs(found_ppm - drift_ppm) < 10
        assert lag.accepted, lag.reason
        # A sample is the mean of the interval that ends at its stamp, so it shows the load half an interval late.
        expected_s = lag_s + 0.5 / RATE + LINE_S
        assert abs(lag.lag_s - expected_s) < 0.020
        assert abs(lag.lag_s - expected_s) < 3 * lag.uncertainty_s
