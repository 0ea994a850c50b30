"""What one frame means after the last."""

from hypothesis import given
from hypothesis import strategies as st

from meter_bridge.protocol.frames import Frame
from meter_bridge.protocol.sequence import SequenceTracker


def frame(seq: int | None, ms: int | None) -> Frame:
    return Frame((1.0,), seq=seq, device_ms=ms)


def verdicts(*pairs: tuple[int | None, int | None]) -> list[tuple[str, int]]:
    tracker = SequenceTracker()
    return [(j.verdict, j.missing) for j in (tracker.judge(frame(*pair)) for pair in pairs)]


def test_gap_duplicate_reset() -> None:
    assert verdicts((5, 500), (6, 600), (9, 900), (9, 900), (6, 600), (10, 1000)) == [
        ("first", 0), ("next", 0), ("gap", 2), ("duplicate", 0), ("duplicate", 0), ("next", 0),
    ]  # fmt: skip
    assert verdicts((5, 500), (6, 600), (0, 0), (1, 100))[2:] == [("reset", 0), ("next", 0)]


def test_counters_that_wrap_are_no_resets() -> None:
    top = 2**32
    assert verdicts((top - 1, top - 50), (0, 50), (1, 150)) == [("first", 0), ("next", 0), ("next", 0)]


def test_a_clock_that_goes_back_is_a_reset_even_if_the_counter_goes_on() -> None:
    assert verdicts((5, 5000), (6, 10))[1] == ("reset", 0)


def test_meters_without_counter_or_clock() -> None:
    assert verdicts((None, None), (None, None)) == [("first", 0), ("first", 0)]
    assert verdicts((None, 100), (None, 200), (None, 50)) == [("first", 0), ("next", 0), ("reset", 0)]
    assert verdicts((1, None), (2, None), (4, None), (4, None)) == [
        ("first", 0), ("next", 0), ("gap", 1), ("duplicate", 0),
    ]  # fmt: skip


@given(st.sets(st.integers(0, 400), min_size=1), st.integers(0, 2**32 - 1))
def test_missing_frames_are_counted_exactly(sent: set[int], base: int) -> None:
    order = sorted(sent)
    pairs = [((base + n) % 2**32, (base + 100 * n) % 2**32) for n in order]
    assert sum(missing for _, missing in verdicts(*pairs)) == order[-1] - order[0] + 1 - len(order)
