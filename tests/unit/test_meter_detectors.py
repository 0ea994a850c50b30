"""What looks wrong is named, what is right is left in peace; swapped channels; the live feed."""

import asyncio
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from meter_bridge.find_channel import find_channel, verdict
from meter_bridge.instrument.detectors import ChannelWatch, examine
from meter_bridge.live import QUEUE_MESSAGES, Aggregator, LiveSample
from shared.kernel.records import Instrument
from shared.service.broadcaster import Broadcaster
from shared.wire.meter_api import MarkerRun, SampleBlock

NS = 1_000_000_000


def channel(seed: int = 1, seconds: float = 30) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A healthy channel at 10 Hz: idle and load with noise, in milliwatts resolution."""
    rng = np.random.default_rng(seed)
    times = np.arange(0, seconds, 0.1)
    load = np.where((times // 5).astype(int) % 2, 8.0, 3.2)
    return times, np.round(load + rng.normal(0, 0.05, times.size), 3)


@given(st.integers(0, 500))
@settings(max_examples=25)
def test_a_healthy_channel_is_left_in_peace(seed: int) -> None:
    assert examine(*channel(seed)) == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (np.round, "grid of 1 W"),
        (lambda w: np.round(w * 2) / 2, "grid of 0.5 W"),
        (lambda w: -w, "negative"),
        (lambda w: np.minimum(w, 7.9), "clip at 7.9"),
        (lambda w: np.where(w < 4, 0.0, w), "start-up threshold"),
        (lambda w: np.concatenate((w[:150], np.full(150, w[150]))), "has read exactly"),
        (lambda w: np.full_like(w, np.nan), "no valid power"),
    ],
)
def test_damage_is_named(damage: object, words: str) -> None:
    times, watts = channel()
    assert callable(damage)
    (finding,) = examine(times, damage(watts))
    assert words in finding


def test_several_faults_on_several_channels() -> None:
    watch = ChannelWatch(("a", "b"))
    times, watts = channel()
    for at, value in zip(times, watts, strict=True):
        watch.add(round(at * NS), (float(value), -round(float(value))))
    found = watch.findings()
    assert len(found) == 2
    assert all(text.startswith("channel 2 (b)") for text in found)
    assert ChannelWatch(("a",)).findings() == []


def block(gains: dict[str, dict[str, float]], marker: MarkerRun) -> SampleBlock:
    """Samples of all channels around a marker; `gains[channel][node]` is what a watt on the node shows there."""
    rng = np.random.default_rng(3)
    times = np.arange(marker.start_utc_ns - 2 * NS, marker.end_utc_ns + 2 * NS, NS // 10)
    load = np.array([4.0 * any(start <= at < end for start, end in marker.on) for at in times])
    return SampleBlock(
        instrument=Instrument(name="m", kind="ac_meter", emulated=False),
        utc_ns=tuple(int(at) for at in times),
        power_w={
            name: tuple(float(v) for v in 3 + load * gains[name][marker.node] + rng.normal(0, 0.1, times.size))
            for name in gains
        },
    )


def run_marker(node: str) -> MarkerRun:
    on = tuple((second * NS, (second + 2) * NS) for second in (12, 16))
    return MarkerRun(node=node, on=on, start_utc_ns=10 * NS, end_utc_ns=20 * NS)


def test_identify_names_right_swapped_and_silent_channels() -> None:
    right = {"a": {"a": 1.0, "b": 0.02}, "b": {"a": 0.02, "b": 1.0}}
    found = [find_channel(run_marker(node), block(right, run_marker(node))) for node in ("a", "b")]
    assert verdict(found) == ()
    assert found[0].rises_w["a"] == pytest.approx(4.0, abs=0.15)

    swapped = {"a": right["b"], "b": right["a"]}
    found = [find_channel(run_marker(node), block(swapped, run_marker(node))) for node in ("a", "b")]
    assert [entry.answered_by for entry in found] == ["b", "a"]
    assert all("exchange" in sentence for sentence in verdict(found))

    dead = {"a": {"a": 0.0}, "b": {"a": 0.0}}
    assert find_channel(run_marker("a"), block(dead, run_marker("a"))).answered_by is None
    both = {"a": {"a": 1.0}, "b": {"a": 0.9}}
    assert find_channel(run_marker("a"), block(both, run_marker("a"))).answered_by is None


async def test_aggregates_hold_every_sample_between_two_messages() -> None:
    broadcaster: Broadcaster[LiveSample] = Broadcaster(QUEUE_MESSAGES)
    nodes = ("a", "b")
    values = [float(value) for value in np.random.default_rng(1).uniform(3, 9, 200)]
    with (
        broadcaster.subscription_through(Aggregator(nodes, 2.0)) as slow,
        broadcaster.subscription_through(Aggregator(nodes, 50.0)) as fast,
    ):
        assert broadcaster.wanted
        for number, value in enumerate(values):
            at = number * NS // 50
            broadcaster.publish(LiveSample(at, at, (value, math.nan), emulated=True))
    assert not broadcaster.wanted
    messages = [await asyncio.wait_for(slow.next(), 1) for _ in range(8)]
    times = [message.utc_ns for message in messages]
    assert all(abs(b - a - NS // 2) <= NS // 25 for a, b in itertools.pairwise(times[1:]))
    for earlier, later in itertools.pairwise(messages):
        part = [v for n, v in enumerate(values) if earlier.utc_ns < n * NS // 50 <= later.utc_ns]
        node = later.nodes["a"]
        assert (node.min_w, node.max_w) == (min(part), max(part))
        assert node.mean_w == pytest.approx(sum(part) / len(part))
        assert "b" not in later.nodes
    # Nobody gets more than ten a second, and a client that does not fetch loses the oldest.
    assert 35 <= fast.dropped + QUEUE_MESSAGES <= 42
    first = await fast.next()
    assert first.utc_ns >= 200 * NS // 50 - (QUEUE_MESSAGES + 1) * NS // 10
