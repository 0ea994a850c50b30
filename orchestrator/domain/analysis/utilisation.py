"""How much of the cluster's time is spent measuring: windows and the gap before them, against all of it."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from pydantic import Field

from shared.kernel.clock import NS_PER_S
from shared.kernel.records import Record

Span = tuple[int, int]
"""Start and end of a window in UTC ns."""


class Utilisation(Record):
    """Share of the time from the first window's start to the last one's end, and the longest pause between windows."""

    share: float = Field(ge=0, le=1)
    longest_pause_s: float = Field(ge=0, description="beyond the gap before a window")
    longest_pause_before: str = Field(description="the run whose window ended the longest pause")
    span_s: float

    def sentence(self) -> str:
        """Return it in words."""
        return (
            f"Cluster time: {self.share:.1%} of the {self.span_s / 60:.1f} min from the first window to the last lay"
            f" inside windows or the gap before them; the longest pause was {self.longest_pause_s:.1f} s, before"
            f" a window of {self.longest_pause_before}."
        )


def utilisation(windows: Iterable[tuple[str, Sequence[Span]]], gap_before_window_s: float) -> Utilisation | None:
    """Return the share of time inside windows or the gap before them; None without two windows.

    Args:
        windows: the windows of each finished run and the steady_state before them, with its id, in any order; they
            do not overlap. What a broken attempt measured is a pause.
        gap_before_window_s: waiting before each window.
    """
    ordered = sorted((start, end, run) for run, spans in windows for start, end in spans)
    if len(ordered) < 2:
        return None
    span_s = (ordered[-1][1] - ordered[0][0]) / NS_PER_S
    inside_s = sum(end - start for start, end, _ in ordered) / NS_PER_S
    pauses = [((start - end) / NS_PER_S, run) for (_, end, _), (start, _, run) in pairwise(ordered)]
    gap_s = sum(min(max(pause_s, 0.0), gap_before_window_s) for pause_s, _ in pauses)
    longest_s, before = max(pauses)
    return Utilisation(
        share=min((inside_s + gap_s) / span_s, 1.0),
        longest_pause_s=max(longest_s - gap_before_window_s, 0.0),
        longest_pause_before=before,
        span_s=span_s,
    )
