"""The one type of progress: counts, parts, and reports that come too often."""

import time

import pytest

from shared.kernel.progress import Progress, counted, part, throttled


@pytest.fixture
def told() -> list[tuple[float, str]]:
    return []


def teller(told: list[tuple[float, str]]) -> Progress:
    return lambda fraction, message: told.append((fraction, message))


def test_a_count_becomes_a_share_and_words(told: list[tuple[float, str]]) -> None:
    publish = counted(teller(told), "tokens")
    publish(1, 4)
    publish(0, 0)
    assert told == [(0.25, "1 of 4 tokens"), (0.0, "0 of 0 tokens")]


def test_a_part_stays_between_its_bounds_and_says_whose_it_is(told: list[tuple[float, str]]) -> None:
    for what, message in (("quantise", "blk.0"), ("", "blk.0"), ("quantise", "")):
        part(teller(told), 0.5, 0.9, what)(0.5, message)
    assert [fraction for fraction, _ in told] == pytest.approx([0.7] * 3)
    assert [message for _, message in told] == ["quantise: blk.0", "blk.0", "quantise"]


def test_reports_that_come_too_often_are_dropped_but_never_the_end(told: list[tuple[float, str]]) -> None:
    publish = throttled(teller(told), every_s=0.1)
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < 0.35:
        publish(passed / 0.4, "")
    publish(1.0, "done")
    assert 4 <= len(told) <= 5 and told[0][0] < 0.05 and told[-1] == (1.0, "done")
