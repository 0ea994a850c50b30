"""The other figures of a report: operating point, Pareto frontier, power traces, energy decomposition."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from orchestrator.domain.analysis.curve import OperatingPoint
from orchestrator.domain.analysis.decomposition import EnergyShares
from orchestrator.domain.analysis.pareto import ParetoPoint
from orchestrator.domain.run.alignment import NS
from orchestrator.domain.run.decimation import envelope
from orchestrator.reports.figures import GROUP_STYLE, Drawing, draw_epi_curve
from orchestrator.reports.research_questions import best_named
from orchestrator.results.files import read_traces
from orchestrator.results.read_model import CampaignResults

_MOST_POINTS = 8000
"""Of one line in a figure: more than its pixels, and windows of hours do not make files of megabytes."""


def campaign_drawings(data: CampaignResults) -> tuple[Drawing, ...]:
    """Return every figure that the campaign's data allow, in the order of the report."""
    campaign, found = data.campaign, data.statistics
    questions = max((result.n_questions for result in data.results.values()), default=0)
    n = f"n = {campaign.repetitions} repetition(s), {questions} questions"
    emulated = "EMULATED power. " if campaign.instrument.emulated else ""
    drawings = [
        Drawing(
            "epi_curve",
            draw_epi_curve(data.configurations, data.results),
            f"{emulated}EPI and J/token as ratios to the baseline of the same layout, and composite accuracy"
            f" (fraction), against pruning depth. Bars and bands: 95 % intervals, paired; {n}.",
        )
    ]
    if data.operating_points:
        caption = (
            f"{emulated}Probability of each depth to have the lowest EPI of its layer group, by joint paired bootstrap"
            f" ({0 if found.draws is None else len(found.draws.accuracy)} draws); {n}."
        )
        drawings.append(Drawing("operating_point", _operating(data.operating_points), caption))
    if len(data.pareto) > 1:
        caption = (
            f"{emulated}J/token ratio and accuracy difference (points) to the baseline of the same layout; ellipses"
            f" cover 95 %; filled: on the frontier; {n}."
        )
        drawings.append(Drawing("pareto", _pareto(data), caption))
    if data.shares:
        caption = (
            f"{emulated}Gross energy per token (J/token) of the headline basis: static = idle power x time, dynamic ="
            f" the rest; medians, {n}."
        )
        drawings.append(Drawing("energy_decomposition", _decomposition(data.shares), caption))
    traces = _traces(data)
    if traces is not None:
        drawings.append(traces)
    return tuple(drawings)


def _operating(points: Sequence[OperatingPoint]) -> Figure:
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(points)
    for number, point in enumerate(points):
        at = [chance.depth + (number - (len(points) - 1) / 2) * width for chance in point.chances]
        shares = [chance.probability for chance in point.chances]
        axis.bar(at, shares, width, color=GROUP_STYLE[point.group][0], label=point.group)
    axis.set_xlabel("experts dropped per layer of the group")
    axis.set_ylabel("probability of lowest EPI")
    axis.set_ylim(0, 1)
    axis.legend(title="layers", fontsize=8, title_fontsize=8)
    axis.grid(alpha=0.25, axis="y")
    return figure


def _pareto(data: CampaignResults) -> Figure:
    figure = Figure(figsize=(7, 5), layout="constrained")
    axis = figure.subplots()
    items = {item.id: item for item in data.configurations}
    for point in data.pareto:
        color, marker = GROUP_STYLE[items[point.configuration_id].group]
        x, y = point.joules_ratio, 100 * point.accuracy_difference
        if point.half_width_joules:
            size = (2 * point.half_width_joules, 200 * point.half_width_accuracy)
            axis.add_patch(Ellipse((x, y), *size, facecolor=color, alpha=0.08, edgecolor=color, linewidth=0.6))
        axis.plot(x, y, marker, color=color, markerfacecolor=color if point.on_frontier else "white", markersize=5)
        if items[point.configuration_id].depth == 0 and point is not data.pareto[0]:
            continue  # the control lies on the baseline: both are their own reference
        axis.annotate(_short(point), (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
    axis.set_xlabel("J/token / J/token of baseline")
    axis.set_ylabel("accuracy - accuracy of baseline (points)")
    axis.grid(alpha=0.25)
    return figure


def _short(point: ParetoPoint) -> str:
    return point.configuration_id.removeprefix("drop")


def _decomposition(shares: Sequence[EnergyShares]) -> Figure:
    figure = Figure(figsize=(max(6.0, 0.36 * len(shares) + 2), 4), layout="constrained")
    axis = figure.subplots()
    at = np.arange(len(shares))
    static = [share.static_joules_per_token for share in shares]
    axis.bar(at, static, color="#8d99ae", label="static: idle power x time")
    axis.bar(at, [share.dynamic_joules_per_token for share in shares], bottom=static, color="#1b6ca8", label="dynamic")
    axis.set_xticks(at, [share.configuration_id for share in shares], rotation=60, ha="right", fontsize=7)
    axis.set_ylabel("J/token")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.25, axis="y")
    return figure


def _traces(data: CampaignResults) -> Drawing | None:
    """Draw cluster power of a baseline and a variant around their first decode window, aligned at its start."""
    chosen = _compared(data)
    if chosen is None:
        return None
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axis = figure.subplots()
    for name, color in zip(chosen, ("0.35", "#c8553d"), strict=True):
        run, evaluation = data.inputs[name][0], data.runs[name][0]
        window = next(item for item in evaluation.windows if item.label == "decode")
        path = data.folder / name / f"power_trace_{run.repetition:03d}.csv"
        seconds, watts = _around(path, window.start_utc_ns, window.duration_seconds)
        axis.plot(seconds, watts, color=color, linewidth=0.9, label=f"{name}, repetition {run.repetition}")
        axis.axvspan(0, window.duration_seconds, color=color, alpha=0.06, linewidth=0)
    axis.set_xlabel("time since the start of the decode window (s), meter lag removed")
    axis.set_ylabel("cluster power (W)")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.25)
    emulated = "EMULATED power. " if data.campaign.instrument.emulated else ""
    caption = (
        f"{emulated}Cluster power (W) of {chosen[0]} and {chosen[1]}, aligned at their decode windows (shaded);"
        " n = 1 run each."
    )
    return Drawing("power_traces", figure, caption)


def _compared(data: CampaignResults) -> tuple[str, str] | None:
    measured = {name for name, runs in data.runs.items() if any(item.label == "decode" for item in runs[0].windows)}
    best = best_named(data.results)
    variants = [item.id for item in data.configurations if item.is_pruned and item.id in measured]
    name = best if best in measured else (variants[-1] if variants else None)
    if name is None:
        return None
    reference = data.results[name].reference_id
    return (reference, name) if reference in measured else None


def _around(
    path: Path, start_utc_ns: int, duration_s: float
) -> tuple[np.typing.NDArray[np.float64], np.typing.NDArray[np.float64]]:
    traces = read_traces(path)
    margin = max(0.5, 0.25 * duration_s)
    first = next(iter(traces.values())).utc_ns
    axis = (first - start_utc_ns) * NS
    own = (axis >= -margin) & (axis <= duration_s + margin)
    seconds = np.asarray(axis[own], dtype=np.float64)
    watts = np.zeros(seconds.size)
    for trace in traces.values():
        watts += np.interp(seconds, (trace.utc_ns - start_utc_ns) * NS, trace.power_w)
    return envelope(seconds, watts, _MOST_POINTS)
