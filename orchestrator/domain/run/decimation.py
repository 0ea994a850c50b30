"""Long traces in few points: what is drawn of them, never what is calculated from them."""

from collections.abc import Mapping

import numpy as np

from orchestrator.domain.arrays import Floats, Ints
from orchestrator.domain.run.alignment import Trace


def envelope(x: Floats, y: Floats, most: int) -> tuple[Floats, Floats]:
    """Return at most `most` points that draw the same line: lowest and highest of each stretch, in their order.

    A line of no more points than that is returned as it is.
    """
    if x.size <= most:
        return x, y
    edges = np.linspace(0, x.size, most // 2 + 1).astype(np.int64)
    picked: list[int] = []
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        own = y[begin:end]
        picked += sorted((begin + int(own.argmin()), begin + int(own.argmax())))
    return x[picked], y[picked]


def common_axis(traces: Mapping[str, Trace]) -> Ints:
    """Return all times of the traces, ascending; the array of the traces itself where they share it."""
    axes = [trace.utc_ns for trace in traces.values()]
    if all(axis is axes[0] for axis in axes):
        return axes[0] if axes else np.zeros(0, dtype=np.int64)
    return np.unique(np.concatenate(axes))
