"""How much of the cluster's time is spent measuring: windows and the settling before them, against all of it."""

from collections.abc import Sequence
from itertools import pairwise

from pydantic import Field

from shared.clock import NS_PER_S
from shared.records import Record


class Utilisation(Record):
    """Share of the time from the first window's start to the last one's end, and the longest pause between windows."""

    share: float = Field(ge=0, le=1)
    longest_pause_s: float = Field(ge=0, description="beyond the settling time")
    span_s: float


def utilisation(windows: Sequence[tuple[int, int]], settle_s: float) -> Utilisation | None:
    """Return the share of time inside windows or settling; None without two windows.

    Args:
        windows: (start, end) of every window in UTC ns, in any order; they do not overlap.
        settle_s: waiting before each window that counts as stabilisation.
    """
    if len(windows) < 2:
        return None
    ordered = sorted(windows)
    span_s = (ordered[-1][1] - ordered[0][0]) / NS_PER_S
    inside_s = sum(end - start for start, end in ordered) / NS_PER_S
    pauses_s = [(start - end) / NS_PER_S for (_, end), (start, _) in pairwise(ordered)]
    settled_s = sum(min(max(pause_s, 0.0), settle_s) for pause_s in pauses_s)
    return Utilisation(
        share=min((inside_s + settled_s) / span_s, 1.0),
        longest_pause_s=max(max(pauses_s) - settle_s, 0.0),
        span_s=span_s,
    )
