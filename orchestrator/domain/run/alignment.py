"""Traces and windows: edge-interpolated integration, gaps, and the meter's lag found from a marker load.

A trace is the calibrated power of one node. Times are UTC nanoseconds as int64, so that differences are exact; only
differences become seconds. What energies mean is in `energy`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.domain.run.records import MarkerLoad
from shared.kernel.records import NodeName, Window

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


def shift_window(window: Window, lag_s: float) -> Window:
    """Return the window on the meter's time axis: moved later by the lag, its length unchanged."""
    shift = round(lag_s / NS)
    return window.model_copy(
        update={"start_utc_ns": window.start_utc_ns + shift, "end_utc_ns": window.end_utc_ns + shift}
    )


@dataclass(frozen=True)
class _Segment:
    """Where a window lies on a time axis: samples first..last bracket it, `spacing` are the ns between them."""

    first: int
    last: int
    spacing: NDArray[np.int64]
    shortest: int
    longest: int


def integrate(trace: Trace, start_utc_ns: int, end_utc_ns: int, gap_limit_s: float) -> Integral:
    """Integrate power over [start, end) by trapezoids, with the power interpolated at both edges.

    Exact for power that is linear between samples. Both edges must lie between two samples (or on one), and no two
    neighbouring samples may be further apart than `gap_limit_s`; otherwise there is no energy but a reason: nothing is
    extrapolated or guessed.
    """
    return integrate_all({trace.node: trace}, start_utc_ns, end_utc_ns, gap_limit_s)[trace.node]


def integrate_all(
    traces: Mapping[NodeName, Trace], start_utc_ns: int, end_utc_ns: int, gap_limit_s: float
) -> dict[NodeName, Integral]:
    """Integrate every trace as `integrate` does; traces that share their time axis share the work on it."""
    out: dict[NodeName, Integral] = {}
    axis: NDArray[np.int64] | None = None
    segment = _Segment(-1, 0, np.zeros(0, dtype=np.int64), 0, 0)
    for node, trace in traces.items():
        if trace.utc_ns is not axis:
            axis = trace.utc_ns
            segment = _segment(axis, start_utc_ns, end_utc_ns)
        out[node] = _integral(trace, segment, start_utc_ns, end_utc_ns, gap_limit_s)
    return out


def _segment(times: NDArray[np.int64], start_utc_ns: int, end_utc_ns: int) -> _Segment:
    first = int(np.searchsorted(times, start_utc_ns, side="right")) - 1
    last = int(np.searchsorted(times, end_utc_ns, side="left"))
    if first < 0 or last >= times.size:
        return _Segment(first, last, np.zeros(0, dtype=np.int64), 0, 0)
    spacing = np.diff(times[first : last + 1])
    return _Segment(first, last, spacing, int(spacing.min()), int(spacing.max()))


def _integral(trace: Trace, at: _Segment, start_utc_ns: int, end_utc_ns: int, gap_limit_s: float) -> Integral:
    inside = max(at.last - max(at.first, 0) - 1, 0)
    if at.spacing.size == 0:
        edge = "start" if at.first < 0 else "end"
        reason = f"{trace.node}: no sample beyond the {edge} of the window"
        return Integral(None, None, None, None, inside, None, reason)
    max_gap_s = at.longest * NS
    if max_gap_s > gap_limit_s:
        where = int(at.spacing.argmax())
        place = "at the start" if where == 0 else "at the end" if where == at.spacing.size - 1 else "inside"
        return Integral(
            None, None, None, None, inside, max_gap_s,
            f"{trace.node}: gap of {max_gap_s:.3g} s {place} of the window, limit {gap_limit_s:g} s",
        )  # fmt: skip
    times = trace.utc_ns
    start_w = _between(trace, at.first, start_utc_ns)
    end_w = _between(trace, at.last - 1, end_utc_ns)
    own = trace.power_w[at.first + 1 : at.last]
    if own.size == 0:
        energy = (end_utc_ns - start_utc_ns) * NS * (start_w + end_w) / 2
        return Integral(energy, max(start_w, end_w), start_w, end_w, inside, max_gap_s)
    lead = (int(times[at.first + 1]) - start_utc_ns) * NS * (start_w + float(own[0])) / 2
    tail = (end_utc_ns - int(times[at.last - 1])) * NS * (float(own[-1]) + end_w) / 2
    if at.shortest == at.longest:
        body = (float(own.sum()) - (float(own[0]) + float(own[-1])) / 2) * (at.longest * NS)
    else:
        body = float((at.spacing[1:-1] * (own[:-1] + own[1:])).sum()) * (NS / 2)
    return Integral(lead + body + tail, max(start_w, end_w, float(own.max())), start_w, end_w, inside, max_gap_s)


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
    seconds = np.asarray((trace.utc_ns[low:high] - marker.start_utc_ns) * NS, dtype=np.float64)
    power = trace.power_w[low:high]
    prior = (lag_range_s[1] - lag_range_s[0]) / np.sqrt(12)
    if seconds.size < _MIN_MARKER_SAMPLES:
        return LagFit(0.0, float(prior), False, f"{marker.node}: only {seconds.size} samples in the marker")
    width = float(np.median(np.diff(seconds)))
    on_s = [((a - marker.start_utc_ns) * NS, (b - marker.start_utc_ns) * NS) for a, b in marker.on]
    span_s = (marker.end_utc_ns - marker.start_utc_ns) * NS

    # From steps that cannot miss the main lobe of the marker's autocorrelation down to a quarter sample interval.
    step = max(width / 2, min(end - begin for begin, end in on_s) / (4 * len(on_s)))
    candidates = np.arange(lag_range_s[0], lag_range_s[1] + step / 2, step, dtype=np.float64)
    best = 0.0
    while True:
        unexplained, _ = _unexplained(seconds, power, candidates, on_s, span_s, width)
        if not np.isfinite(unexplained).any():
            return LagFit(0.0, float(prior), False, f"{marker.node}: the marker's load does not show")
        best = float(candidates[int(np.nanargmin(unexplained))])
        if step <= width / 4:
            break
        candidates = np.linspace(best - step, best + step, 9)
        step /= 4

    own = (seconds - best >= 0) & (seconds - best <= span_s)
    seconds, power = seconds[own], power[own]  # the same samples for every fine candidate: SSEs are comparable
    fine = np.arange(best - 1.5 * width, best + 1.5 * width, width / 10, dtype=np.float64)
    rest, steps = _unexplained(seconds, power, fine, on_s, None, width)
    if not np.isfinite(rest).any():
        return LagFit(0.0, float(prior), False, f"{marker.node}: the marker's load does not show")
    at = int(np.nanargmin(rest))
    lag_s, share, step_w = float(fine[at]), float(rest[at]), float(steps[at])
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
    seconds: Floats,
    power: Floats,
    lags: Floats,
    on_s: Sequence[tuple[float, float]],
    span_s: float | None,
    width: float,
) -> tuple[Floats, Floats]:
    """Return, per lag, the share of the power's variance that the step leaves, and the step in W; NaN if not a step up.

    With `span_s` each lag is judged by the samples that fall into [0, span_s] of the load's own time.
    """
    load_s = seconds - lags[:, None]
    edges = np.array([edge for pair in on_s for edge in pair])
    on_time = np.concatenate([[0.0], np.cumsum(np.diff(edges) * (np.arange(edges.size - 1) % 2 == 0))])
    shape = np.interp(load_s + width / 2, edges, on_time) - np.interp(load_s - width / 2, edges, on_time)
    own = np.ones_like(load_s) if span_s is None else ((load_s >= 0) & (load_s <= span_s)).astype(np.float64)
    count = own.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        shape_c = (shape - ((shape * own).sum(-1) / count)[:, None]) * own
        power_c = (power - ((power * own).sum(-1) / count)[:, None]) * own
        variance, total = (shape_c**2).sum(-1), (power_c**2).sum(-1)
        step = (shape_c * power_c).sum(-1) / variance
        share = 1 - step**2 * variance / total
    good = (count >= _MIN_MARKER_SAMPLES) & (variance > 0) & (total > 0) & (step > 0)
    return np.where(good, np.maximum(share, 0.0), np.nan), np.where(good, step * width, np.nan)
