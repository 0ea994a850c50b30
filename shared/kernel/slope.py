"""How fast a reading changes: the least-squares slope, and what it makes of the mean."""

from collections.abc import Sequence

_FEWEST = 3
Points = Sequence[tuple[int, float | None]]
"""(UTC ns, value); None where a reading is missing."""


def slope_per_s(points: Points) -> float | None:
    """Return the least-squares slope a second; None with fewer than three values or without time between them."""
    known = _known(points)
    if len(known) < _FEWEST:
        return None
    seconds = [(at - known[0][0]) / 1e9 for at, _ in known]
    mean_s, mean = sum(seconds) / len(seconds), sum(value for _, value in known) / len(known)
    spread = sum((at_s - mean_s) ** 2 for at_s in seconds)
    if spread == 0:
        return None
    return sum((at_s - mean_s) * (value - mean) for at_s, (_, value) in zip(seconds, known, strict=True)) / spread


def relative_drift(points: Points) -> float | None:
    """Return the change over the points along that slope as a share of their mean; None without a mean above 0."""
    known, slope = _known(points), slope_per_s(points)
    if slope is None or (mean := sum(value for _, value in known) / len(known)) <= 0:
        return None
    return slope * (known[-1][0] - known[0][0]) / 1e9 / mean


def _known(points: Points) -> list[tuple[int, float]]:
    return [(at, value) for at, value in points if value is not None]
