"""What looks wrong about the values of a channel: grids, stuck or negative readings, clipping, a start-up threshold.

Works on raw readings of the last minute. Not here: swapped channels (`identify`), the link (`event_log`).
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from shared.kernel.records import NodeName

KEPT_S = 60.0
FEWEST = 30
STUCK_S = 10.0
NEGATIVE_W = -0.1
_GRIDS_W = (1.0, 0.5, 0.25, 0.2, 0.1)
_GRID_UNCERTAINTY = 0.005
"""A grid is a problem when one count, as q / sqrt(12), is more than this share of the power."""
_CLIPPED_SHARE = 0.05
_CLIPPED_FEWEST = 10
_THRESHOLD_W = 0.5


class ChannelWatch:
    """Keeps the readings of the last minute and looks at them when asked."""

    def __init__(self, nodes: tuple[NodeName, ...]) -> None:
        self._nodes = nodes
        self._rows: deque[tuple[int, tuple[float, ...]]] = deque()

    def add(self, mono_ns: int, power_w: tuple[float, ...]) -> None:
        """Take one raw sample."""
        self._rows.append((mono_ns, power_w))
        oldest = mono_ns - int(KEPT_S * 1e9)
        while self._rows[0][0] < oldest:
            self._rows.popleft()

    def findings(self) -> list[str]:
        """Return one sentence for each thing that looks wrong."""
        if len(self._rows) < FEWEST:
            return []
        seconds = np.array([row[0] for row in self._rows], dtype=np.float64) / 1e9
        table = np.array([row[1] for row in self._rows], dtype=np.float64)
        found: list[str] = []
        for channel, node in enumerate(self._nodes):
            found += [f"channel {channel + 1} ({node}): {text}" for text in examine(seconds, table[:, channel])]
        return found


def examine(seconds: NDArray[np.float64], power_w: NDArray[np.float64]) -> list[str]:
    """Return what looks wrong about one channel: times in seconds, raw watts, both 1-D, NaN where nothing was sent."""
    valid = np.isfinite(power_w)
    if valid.sum() < FEWEST:
        return ["it sends no valid power"] if valid.sum() < 0.1 * len(valid) else []
    values, times = power_w[valid], seconds[valid]
    found = []
    grid = _grid(values)
    if (values < NEGATIVE_W).mean() > 0.5:
        found.append(f"its power is negative ({np.median(values):.2f} W); turn the CT round")
    if grid is not None:
        typical = float(np.median(np.abs(values)))
        share = grid / 12**0.5 / typical
        if share > _GRID_UNCERTAINTY:
            found.append(f"its readings lie on a grid of {grid:g} W: {share:.1%} at {typical:.2f} W")
    stuck_s = float(times[-1] - times[_run_start(values)])
    if values[-1] != 0 and stuck_s >= STUCK_S:
        found.append(f"it has read exactly {values[-1]:g} W for {stuck_s:.0f} s")
    elif grid is None and _is_clipped(values):
        found.append(f"it seems to clip at {values.max():g} W")
    if grid is None and _below_threshold(values):
        found.append("it reads exactly 0 W at times; the load falls below the IC's start-up threshold")
    return found


def _grid(values: NDArray[np.float64]) -> float | None:
    """Return the coarsest grid on which every reading lies, or None; an all-zero channel tells nothing."""
    if not np.any(values):
        return None
    for step in _GRIDS_W:
        counts = values / step
        if np.all(np.abs(counts - np.round(counts)) < 1e-6):
            return step
    return None


def _run_start(values: NDArray[np.float64]) -> int:
    """Return the index at which the last run of equal values begins."""
    changes = np.flatnonzero(np.diff(values))
    return int(changes[-1]) + 1 if changes.size else 0


def _is_clipped(values: NDArray[np.float64]) -> bool:
    top = values == values.max()
    often = top.sum() >= _CLIPPED_FEWEST and top.mean() > _CLIPPED_SHARE
    return bool(often and not top.all() and len(np.unique(values)) > 5)


def _below_threshold(values: NDArray[np.float64]) -> bool:
    zero = values == 0
    return bool(zero.sum() >= 3 and not zero.all() and np.abs(values[~zero]).min() > _THRESHOLD_W)
