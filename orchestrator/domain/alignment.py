"""Traces and windows: edge-interpolated integration, gaps, and the meter's lag found from a marker load.

A trace is the calibrated power of one node. Times are UTC nanoseconds as int64, so that differences are exact; only
differences become seconds. What energies mean is in `energy`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.domain.records import MarkerLoad
from shared.errors import DataError
from shared.meter_api import SampleBlock
from shared.records import NodeName, Window

NS = 1e-9
Floats = NDArray[np.float64]
_MIN_EXPLAINED = 0.5
_MIN_MARKER_SAMPLES = 8


@dataclass(frozen=True)
class Trace:
    """Power of one node: `power_w[i]` (float64) at `utc_ns[i]` (int64, strictly ascending)."""

    node: NodeName
    utc_ns: NDArray[np.int64]
    power_w: NDArray[np.float64]


@dataclass(frozen=True)
class Integral:
    """Energy of one node over one window; None when the trace does not cover it, and `reason` says why."""

    energy_j: float | None
    peak_w: float | None
    start_w: float | None
    end_w: float | None
    n_samples: int
    max_gap_s: float | None
    reason: str = ""


@dataclass(frozen=True)
class LagFit:
    """How late the meter is: a sample stamped t shows the load at t - lag_s; both in seconds, uncertainty 1 sigma."""

    lag_s: float
    uncertainty_s: float
    accepted: bool
    reason: str = ""
    step_w: float | None = None


def traces_of(block: SampleBlock) -> dict[NodeName, Trace]:
    """Return one trace a node, without the samples a channel did not send.

    Raises:
        DataError: columns of different length, or times that do not ascend.
    """
    times = np.asarray(block.utc_ns, dtype=np.int64)
    if times.size > 1 and not bool(np.all(np.diff(times) > 0)):
        at = int(np.argmin(np.diff(times) > 0))
        raise DataError("sample times do not ascend", where=f"sample {at + 1}")
    traces: dict[NodeName, Trace] = {}
    for node in sorted(block.power_w):
        column = block.power_w[node]
        if len(column) != times.size:
            raise DataError(f"{len(column)} powers for {times.size} times", where=f"node {node}")
        power = np.asarray([np.nan if value is None else value for value in column], dtype=np.float64)
        known = np.isfinite(power)
        complete = bool(known.all())  # shared times make sums over nodes cheap
        traces[node] = Trace(node, times if complete else times[known], power if complete else power[known])
    return traces


def shift_window(window: Window, lag_s: float) -> Window:
    """Return the window on the meter's time axis: moved later by the lag, its length unchanged."""
    shift = round(lag_s / NS)
    return window.model_copy(
        update={"start_utc_ns": window.start_utc_ns + shift, "end_utc_ns": window.end_utc_ns + shift}
    )


def integrate(trace: Trace, start_utc_ns: int, end_utc_ns: int, gap_limit_s: float) -> Integral:
    """Integrate power over [start, end) by trapezoids, with the power interpolated at both edges.

    Exact for power that is linear between samples. Both edges must lie between two samples (or on one), and no two
    neighbouring samples may be further apart than `gap_limit_s`; otherwise there is no energy but a reason: nothing is
    extrapolated or guessed.
    """
    times = trace.utc_ns
    first = int(np.searchsorted(times, start_utc_ns, side="right")) - 1
    last = int(np.searchsorted(times, end_utc_ns, side="left"))
    inside = max(last - max(first, 0) - 1, 0)
    if first < 0 or last >= times.size:
        edge = "start" if first < 0 else "end"
        reason = f"{trace.node}: no sample beyond the {edge} of the window"
        return Integral(None, None, None, None, inside, None, reason)
    spacing = np.diff(times[first : last + 1])
    max_gap_s = float(spacing.max()) * NS
    power = trace.power_w
    if max_gap_s > gap_limit_s:
        at = int(spacing.argmax())
        place = "at the start" if at == 0 else "at the end" if at == spacing.size - 1 else "inside"
        return Integral(
            None, None, None, None, inside, max_gap_s,
            f"{trace.node}: gap of {max_gap_s:.3g} s {place} of the window, limit {gap_limit_s:g} s",
        )  # fmt: skip
    start_w = _between(trace, first, start_utc_ns)
    end_w = _between(trace, last - 1, end_utc_ns)
    own = power[first + 1 : last]
    if own.size == 0:
        energy = (end_utc_ns - start_utc_ns) * NS * (start_w + end_w) / 2
    else:
        lead = (int(times[first + 1]) - start_utc_ns) * NS * (start_w + float(own[0])) / 2
        tail = (end_utc_ns - int(times[last - 1])) * NS * (float(own[-1]) + end_w) / 2
        energy = lead + float(np.dot(spacing[1:-1], own[:-1] + own[1:])) * (NS / 2) + tail
    peak = max(start_w, end_w, float(own.max(initial=-np.inf)))
    return Integral(energy, peak, start_w, end_w, inside, max_gap_s)


def gaps(trace: Trace, start_utc_ns: int, end_utc_ns: int, limit_s: float) -> tuple[tuple[int, int], ...]:
    """Return [(from, to)] in UTC ns: where samples that touch the window are further apart than `limit_s`."""
    first = max(int(np.searchsorted(trace.utc_ns, start_utc_ns, side="right")) - 1, 0)
    last = int(np.searchsorted(trace.utc_ns, end_utc_ns, side="left"))
    times = trace.utc_ns[first : last + 1]
    wide = np.flatnonzero(np.diff(times) * NS > limit_s)
    return tuple((int(times[i]), int(times[i + 1])) for i in wide)


def cluster_peak_w(traces: Sequence[Trace], start_utc_ns: int, end_utc_ns: int) -> float:
    """Return the highest sum of the nodes' power in the window, each interpolated at all sample times and edges."""
    first = traces[0].utc_ns
    if all(trace.utc_ns is first for trace in traces):
        low, high = np.searchsorted(first, [start_utc_ns, end_utc_ns])
        total = np.sum([trace.power_w[low:high] for trace in traces], axis=0)
        before, after = int(np.searchsorted(first, start_utc_ns, side="right")) - 1, int(high) - 1
        edges = (
            sum(_between(trace, before, start_utc_ns) for trace in traces),
            sum(_between(trace, after, end_utc_ns) for trace in traces),
        )
        return max(*edges, float(total.max(initial=-np.inf)))
    moments = [np.asarray([start_utc_ns, end_utc_ns], dtype=np.int64)]
    for trace in traces:
        low, high = np.searchsorted(trace.utc_ns, [start_utc_ns, end_utc_ns])
        moments.append(trace.utc_ns[low:high])
    axis = np.unique(np.concatenate(moments))
    seconds = (axis - start_utc_ns) * NS
    total = np.zeros(axis.size)
    for trace in traces:
        low = max(int(np.searchsorted(trace.utc_ns, start_utc_ns, side="right")) - 1, 0)
        high = int(np.searchsorted(trace.utc_ns, end_utc_ns, side="left")) + 1
        total += np.interp(seconds, (trace.utc_ns[low:high] - start_utc_ns) * NS, trace.power_w[low:high])
    return float(total.max())


def fit_lag(trace: Trace, marker: MarkerLoad, lag_range_s: tuple[float, float] = (-0.25, 1.5)) -> LagFit:
    """Find how late the meter shows a marker load.

    Least squares of P(t) = a + b on(t - lag), where on() is averaged over one sample interval around t, so that a
    sample is taken as the trapezoid rule takes it. For each candidate lag only the samples that fall into the marker's
    own span are used, since the load outside is unknown. The uncertainty is the larger of the chi-square interval
    (SSE rises by SSE/(n - 3)) and one sample interval / sqrt(12): the edges may all fall alike between two samples.
    """
    low, high = np.searchsorted(
        trace.utc_ns,
        [marker.start_utc_ns + round(lag_range_s[0] / NS), marker.end_utc_ns + round(lag_range_s[1] / NS)],
    )
    seconds = (trace.utc_ns[low:high] - marker.start_utc_ns) * NS
    power = trace.power_w[low:high]
    prior = (lag_range_s[1] - lag_range_s[0]) / np.sqrt(12)
    if seconds.size < _MIN_MARKER_SAMPLES:
        return LagFit(0.0, float(prior), False, f"{marker.node}: only {seconds.size} samples in the marker")
    width = float(np.median(np.diff(seconds)))
    on_s = [((a - marker.start_utc_ns) * NS, (b - marker.start_utc_ns) * NS) for a, b in marker.on]
    span_s = (marker.end_utc_ns - marker.start_utc_ns) * NS

    def fits(lags: Floats, span: float | None) -> Floats:
        return np.array([_unexplained(seconds - lag, power, on_s, span, width)[0] for lag in lags], dtype=np.float64)

    # Coarse steps that cannot miss the main lobe of the marker's autocorrelation, then steps below a sample interval.
    shortest = min(end - begin for begin, end in on_s)
    coarse = max(width / 2, shortest / (4 * len(on_s)))
    candidates = np.arange(lag_range_s[0], lag_range_s[1] + coarse / 2, coarse, dtype=np.float64)
    for step in (coarse, width / 4):
        unexplained = fits(candidates, span_s)
        if not np.isfinite(unexplained).any():
            return LagFit(0.0, float(prior), False, f"{marker.node}: the marker's load does not show")
        best = float(candidates[int(np.nanargmin(unexplained))])
        candidates = np.arange(best - step, best + step, width / 4, dtype=np.float64)

    own = (seconds - best >= 0) & (seconds - best <= span_s)
    seconds, power = seconds[own], power[own]  # the same samples for every fine candidate: SSEs are comparable
    fine = np.arange(best - 1.5 * width, best + 1.5 * width, width / 20, dtype=np.float64)
    rest = fits(fine, None)
    lag_s = float(fine[int(np.nanargmin(rest))])
    share, step_w = _unexplained(seconds - lag_s, power, on_s, None, width)
    if not 1 - share >= _MIN_EXPLAINED:
        return LagFit(0.0, float(prior), False, f"{marker.node}: the marker explains only {1 - share:.0%} of the power")
    likely = fine[rest <= share * (1 + 1 / max(seconds.size - 3, 1))]
    from_noise = float(likely.max() - likely.min()) / 2
    from_sampling = width / 12**0.5
    return LagFit(lag_s, max(from_noise, from_sampling), True, "", step_w)


def combine_lags(fits: Sequence[LagFit], lag_range_s: tuple[float, float]) -> LagFit:
    """Return the weighted mean of the accepted fits of one meter; disagreement beyond their errors widens the result.

    Without an accepted fit the lag is 0, not accepted, with the uncertainty of a lag anywhere in `lag_range_s`.
    """
    good = [fit for fit in fits if fit.accepted]
    if not good:
        reason = "; ".join(fit.reason for fit in fits) or "no marker was measured"
        return LagFit(0.0, (lag_range_s[1] - lag_range_s[0]) / 12**0.5, False, reason)
    lags = np.array([fit.lag_s for fit in good])
    weights = np.array([fit.uncertainty_s**-2 for fit in good])
    mean = float(np.average(lags, weights=weights))
    internal = float(weights.sum()) ** -0.5
    external = 0.0
    if len(good) > 1:
        external = float(np.sqrt(np.average((lags - mean) ** 2, weights=weights) / (len(good) - 1)))
    return LagFit(mean, max(internal, external), True)


def _between(trace: Trace, left: int, at_utc_ns: int) -> float:
    t0, t1 = int(trace.utc_ns[left]), int(trace.utc_ns[left + 1])
    p0, p1 = float(trace.power_w[left]), float(trace.power_w[left + 1])
    return p0 + (p1 - p0) * ((at_utc_ns - t0) / (t1 - t0))


def _unexplained(
    load_s: NDArray[np.floating],
    power: NDArray[np.floating],
    on_s: Sequence[tuple[float, float]],
    span_s: float | None,
    width: float,
) -> tuple[float, float]:
    """Return (share of the power's variance the step leaves unexplained, step in W); NaN for a step that is not up."""
    if span_s is not None:
        own = (load_s >= 0) & (load_s <= span_s)
        load_s, power = load_s[own], power[own]
    if load_s.size < _MIN_MARKER_SAMPLES:
        return float("nan"), float("nan")
    shape = np.zeros(load_s.size)
    for begin, end in on_s:
        overlap = np.minimum(load_s + width / 2, end) - np.maximum(load_s - width / 2, begin)
        shape = shape + np.clip(overlap, 0, None) / width
    shape -= shape.mean()
    rest = power - power.mean()
    variance, total = float(shape @ shape), float(rest @ rest)
    if variance <= 0 or total <= 0:
        return float("nan"), float("nan")
    step = float(shape @ rest) / variance
    if step <= 0:
        return float("nan"), float("nan")
    rest = rest - step * shape
    return float(rest @ rest) / total, step
