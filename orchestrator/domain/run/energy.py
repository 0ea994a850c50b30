"""Energy of windows and phases: per node and cluster, gross and idle-subtracted, with the share the lag could move.

A phase is all windows of one label in a run. Gross AC energy is primary (it is what the bill shows).
"""

from collections.abc import Mapping, Sequence

from pydantic import Field

from orchestrator.domain.run.alignment import NS, Integral, Trace, cluster_peak_w, integrate_all
from shared.kernel.records import NodeName, Record, TokenLedger, Window, WindowLabel

JOULES_PER_KWH = 3.6e6


class NodeEnergy(Record):
    """One node over one window."""

    total_joules: float
    avg_watts: float
    peak_watts: float


class WindowEnergy(Record):
    """One window on the meter's time axis (after the lag shift); energy null when the trace does not cover it."""

    label: WindowLabel
    start_utc_ns: int
    end_utc_ns: int
    duration_seconds: float
    ledger: TokenLedger
    total_joules: float | None = None
    net_joules: float | None = Field(default=None, description="gross minus idle power x duration")
    avg_watts: float | None = None
    peak_watts: float | None = None
    lag_uncertainty_joules: float | None = Field(default=None, description="change when shifted by the lag's 1 sigma")
    n_samples: int = Field(default=0, description="fewest samples of any node inside the window")
    max_gap_s: float | None = None
    nodes: dict[NodeName, NodeEnergy] = Field(default_factory=dict)
    reason: str = Field(default="", description="why there is no energy")


class PhaseEnergy(Record):
    """All windows of one label together; null energy when any of them has none."""

    label: WindowLabel
    n_windows: int
    duration_seconds: float
    ledger: TokenLedger
    total_joules: float | None = None
    net_joules: float | None = None
    avg_watts_cluster: float | None = None
    peak_watts_cluster: float | None = None
    kwh_total: float | None = None
    lag_uncertainty_joules: float | None = None
    reason: str = ""


def window_energy(
    traces: Mapping[NodeName, Trace], window: Window, *, gap_limit_s: float, lag_uncertainty_s: float
) -> WindowEnergy:
    """Integrate every node over one window that is already on the meter's time axis."""
    start, end = window.start_utc_ns, window.end_utc_ns
    parts = integrate_all(traces, start, end, gap_limit_s)
    bare = WindowEnergy(
        label=window.label,
        start_utc_ns=start,
        end_utc_ns=end,
        duration_seconds=(end - start) * NS,
        ledger=window.ledger,
        n_samples=min((part.n_samples for part in parts.values()), default=0),
        max_gap_s=max((part.max_gap_s for part in parts.values() if part.max_gap_s is not None), default=None),
    )
    reasons = [part.reason for part in parts.values() if part.energy_j is None]
    if reasons or not parts:
        return bare.model_copy(update={"reason": "; ".join(reasons) or "no node was metered"})
    nodes = {
        node: NodeEnergy(total_joules=energy, avg_watts=energy / bare.duration_seconds, peak_watts=part.peak_w)
        for node, part in parts.items()
        if (energy := part.energy_j) is not None and part.peak_w is not None
    }
    total = sum(node.total_joules for node in nodes.values())
    return bare.model_copy(
        update={
            "total_joules": total,
            "avg_watts": total / bare.duration_seconds,
            "peak_watts": cluster_peak_w(list(traces.values()), start, end),
            "lag_uncertainty_joules": _lag_effect(traces, parts, window, gap_limit_s, lag_uncertainty_s),
            "nodes": nodes,
        }
    )


def idle_watts(windows: Sequence[WindowEnergy]) -> dict[NodeName, float] | None:
    """Return each node's mean power over all idle windows, or None when there is no idle window with energy."""
    idle = [window for window in windows if window.label == "idle" and window.total_joules is not None]
    if not idle:
        return None
    seconds = sum(window.duration_seconds for window in idle)
    return {node: sum(window.nodes[node].total_joules for window in idle) / seconds for node in idle[0].nodes}


def subtract_idle(window: WindowEnergy, idle_w: Mapping[NodeName, float] | None) -> WindowEnergy:
    """Return the window with `net_joules`: gross energy minus the idle power of all nodes over its duration."""
    if idle_w is None or window.total_joules is None:
        return window
    net = window.total_joules - sum(idle_w.values()) * window.duration_seconds
    return window.model_copy(update={"net_joules": net})


def phase_energy(label: WindowLabel, windows: Sequence[WindowEnergy]) -> PhaseEnergy | None:
    """Add up the windows of one label; None when there are none. One window without energy leaves the phase without."""
    own = [window for window in windows if window.label == label]
    if not own:
        return None
    ledger = sum((window.ledger for window in own), TokenLedger())
    seconds = sum(window.duration_seconds for window in own)
    bare = PhaseEnergy(label=label, n_windows=len(own), duration_seconds=seconds, ledger=ledger)
    reasons = [window.reason for window in own if window.total_joules is None]
    if reasons:
        return bare.model_copy(update={"reason": "; ".join(reasons)})
    total = sum(window.total_joules or 0.0 for window in own)
    nets = [window.net_joules for window in own if window.net_joules is not None]
    return bare.model_copy(
        update={
            "total_joules": total,
            "net_joules": sum(nets) if len(nets) == len(own) else None,
            "avg_watts_cluster": total / seconds,
            "peak_watts_cluster": max(window.peak_watts or 0.0 for window in own),
            "kwh_total": total / JOULES_PER_KWH,
            "lag_uncertainty_joules": sum(window.lag_uncertainty_joules or 0.0 for window in own),
        }
    )


def _lag_effect(
    traces: Mapping[NodeName, Trace],
    parts: Mapping[NodeName, Integral],
    window: Window,
    gap_limit_s: float,
    lag_uncertainty_s: float,
) -> float:
    """Return how far the energy moves when the window is shifted by one sigma either way, in joules.

    Where the trace ends too soon to shift, the first-order value |P(end) - P(start)| x sigma stands in.
    """
    shift = round(lag_uncertainty_s / NS)
    effects: list[float] = []
    for sign in (-1, 1) if shift else ():
        gained = _strip(traces, window.end_utc_ns, sign * shift, gap_limit_s)
        lost = _strip(traces, window.start_utc_ns, sign * shift, gap_limit_s)
        if gained is not None and lost is not None:
            effects.append(abs(gained - lost))
    if effects:
        return max(effects)
    swing = sum((part.end_w or 0.0) - (part.start_w or 0.0) for part in parts.values())
    return abs(swing) * lag_uncertainty_s


def _strip(traces: Mapping[NodeName, Trace], edge_utc_ns: int, shift: int, gap_limit_s: float) -> float | None:
    """Return the cluster's energy between an edge and the shifted edge, negative for a shift back; None if unknown."""
    low, high = sorted((edge_utc_ns, edge_utc_ns + shift))
    energies = [part.energy_j for part in integrate_all(traces, low, high, gap_limit_s).values()]
    known = [energy for energy in energies if energy is not None]
    if len(known) < len(energies):
        return None
    return sum(known) if shift > 0 else -sum(known)
