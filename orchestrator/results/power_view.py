"""A run's power for the eye: any part of its trace in as many columns as a screen has.

The trace of the run that was looked at last stays in memory (16 bytes a reading), so that zooming does not read its
file again. Not here: energies (`domain.run`), the live feed.
"""

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from orchestrator.domain.arrays import Floats
from orchestrator.domain.run.alignment import NS, Trace
from orchestrator.domain.run.decimation import common_axis
from orchestrator.results.files import read_traces
from shared.kernel.clock import NS_PER_S
from shared.kernel.errors import DataError, NotFoundError
from shared.kernel.records import NodeName, Record

MOST_COLUMNS = 4000
_SMALLEST_GAP_S = 2.5
_BESIDE_NS = NS_PER_S
"""Shown on both sides of what was asked for, so that a line goes on to the edge."""


class PowerView(Record):
    """Power of a run in columns; all lists are of one length. Null where nothing was measured for a while."""

    start_utc_ns: int = Field(description="first sample of the whole trace")
    end_utc_ns: int = Field(description="last sample of the whole trace")
    nodes: tuple[NodeName, ...]
    utc_s: tuple[float, ...] = Field(description="mean time of each column's samples, seconds since 1970 UTC")
    mean_w: dict[NodeName, tuple[float | None, ...]]
    cluster_low_w: tuple[float | None, ...] = Field(description="lowest sum of all nodes in the column")
    cluster_high_w: tuple[float | None, ...] = Field(description="highest sum of all nodes in the column")


class PowerViews:
    """Makes views of the traces of a result tree."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[Path, int, int, int] | None = None
        self._traces: Mapping[NodeName, Trace] = {}

    def view(self, path: Path, start_utc_ns: int | None, end_utc_ns: int | None, columns: int) -> PowerView:
        """Return the part [start, end] of a power trace, all of it for None; costs seconds when it is read anew.

        Raises:
            NotFoundError: there is no such file.
            DataError: it is damaged or empty.
        """
        with self._lock:  # one reads, the others of the same run then need not
            traces = self._read(path)
        return power_view(traces, start_utc_ns, end_utc_ns, columns, where=str(path))

    def _read(self, path: Path) -> Mapping[NodeName, Trace]:
        try:
            status = path.stat()
        except OSError as error:
            raise NotFoundError("the run has no power trace yet", where=str(path)) from error
        key = (path, status.st_ino, status.st_size, status.st_mtime_ns)
        if key != self._key:
            self._key, self._traces = None, {}
            self._traces, self._key = read_traces(path), key
        return self._traces


def power_view(
    traces: Mapping[NodeName, Trace], start_utc_ns: int | None, end_utc_ns: int | None, columns: int, *, where: str = ""
) -> PowerView:
    """Return the part [start, end] of traces in about `columns` columns of equal width.

    Raises:
        DataError: fewer than two samples.
    """
    axis = common_axis(traces)
    if axis.size < 2:
        raise DataError("the power trace is empty", where=where)
    first_ns, last_ns = int(axis[0]), int(axis[-1])
    start = first_ns if start_utc_ns is None else start_utc_ns
    end = max(start + 1, last_ns if end_utc_ns is None else end_utc_ns)
    width_ns = max(1, -(-(end - start) // columns))
    low, high = (int(at) for at in np.searchsorted(axis, [start - _BESIDE_NS, end + _BESIDE_NS + 1]))
    times = axis[low:high]
    begins = np.flatnonzero(np.diff((times - start) // width_ns, prepend=np.iinfo(np.int64).min))
    counts = np.diff(begins, append=times.size)
    powers = {node: _on_axis(trace, axis, low, high) for node, trace in traces.items()}
    cluster = np.sum(list(powers.values()), axis=0)
    seconds = _mean(np.asarray((times - start) * NS, dtype=np.float64), begins, counts)
    gaps = _gaps(seconds, max(_SMALLEST_GAP_S, 3 * width_ns * NS))
    middles = (seconds[gaps] + seconds[gaps - 1]) / 2
    return PowerView(
        start_utc_ns=first_ns,
        end_utc_ns=last_ns,
        nodes=tuple(traces),
        utc_s=tuple((np.insert(seconds, gaps, middles) + start * NS).tolist()),
        mean_w={node: _nulled(_mean(power, begins, counts), gaps) for node, power in powers.items()},
        cluster_low_w=_nulled(np.minimum.reduceat(cluster, begins) if begins.size else cluster, gaps),
        cluster_high_w=_nulled(np.maximum.reduceat(cluster, begins) if begins.size else cluster, gaps),
    )


def _on_axis(trace: Trace, axis: NDArray[np.int64], low: int, high: int) -> Floats:
    """Return a node's watts at axis[low:high]; what it did not send counts as nothing."""
    if trace.utc_ns is axis:
        return trace.power_w[low:high]
    own = slice(*np.searchsorted(trace.utc_ns, [axis[low], axis[high - 1] + 1])) if high > low else slice(0, 0)
    power = np.zeros(high - low)
    power[np.searchsorted(axis[low:high], trace.utc_ns[own])] = trace.power_w[own]
    return power


def _mean(values: Floats, begins: NDArray[np.int64], counts: NDArray[np.int64]) -> Floats:
    return np.add.reduceat(values, begins) / counts if begins.size else np.zeros(0)


def _gaps(seconds: Floats, limit_s: float) -> NDArray[np.int64]:
    """Return the columns before which nothing was measured for longer than the limit."""
    return np.flatnonzero(np.diff(seconds) > limit_s) + 1


def _nulled(values: Floats, gaps: NDArray[np.int64]) -> tuple[float | None, ...]:
    with_gaps = np.insert(values.astype(np.float64), gaps, np.nan)
    return tuple(None if value != value else value for value in with_gaps.tolist())
