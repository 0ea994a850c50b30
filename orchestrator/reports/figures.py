"""Figures of a campaign: how they are drawn and rendered; the same data gives the same bytes.

Every figure has a caption with units and n. The figures that need more than the results table are in `figures_more`.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure

from orchestrator.domain.analysis.statistics import ConfigurationResult
from shared.kernel.records import Configuration

GROUP_STYLE = {"all": ("#1b6ca8", "o"), "early": ("#c8553d", "s"), "late": ("#3a7d44", "^")}
KINDS = ("svg", "pdf", "png")
_SHIFT = {"all": 0.0, "early": -0.12, "late": 0.12}
_METADATA = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}


@dataclass(frozen=True)
class Drawing:
    """A figure with its file name (without ending) and its caption."""

    name: str
    figure: Figure
    caption: str


def render(figure: Figure, kind: str) -> bytes:
    """Return the figure as `svg`, `png` or `pdf` bytes without dates or random ids."""
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "epi-factory", "svg.fonttype": "path"}):
        figure.savefig(out, format=kind, dpi=150, metadata=_METADATA[kind])
    return out.getvalue()


def epi_curve(
    configurations: Sequence[Configuration], results: Mapping[str, ConfigurationResult], caption: str
) -> dict[str, bytes]:
    """Return the EPI curve as SVG and PNG with its caption drawn in, as it lies beside `summary.md`."""
    figure = draw_epi_curve(configurations, results)
    figure.suptitle(caption, fontsize=9, parse_math=False)  # a model may be called anything
    return {kind: render(figure, kind) for kind in ("svg", "png")}


def draw_epi_curve(configurations: Sequence[Configuration], results: Mapping[str, ConfigurationResult]) -> Figure:
    """Draw EPI ratio and J/token ratio to the reference, and accuracy, against depth; layer groups overlaid."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for group, (color, marker) in GROUP_STYLE.items():
        rows = [
            (item.depth + _SHIFT[group], results[item.id])
            for item in configurations
            if item.id in results and _belongs(item, group)
        ]
        style = {"color": color, "marker": marker, "markersize": 4, "linewidth": 1, "capsize": 2, "label": group}
        for axis, name in ((left, "epi_ratio"), (middle, "joules_ratio")):
            points = [(x, getattr(r, name), getattr(r, f"{name}_interval")) for x, r in rows]
            points = [point for point in points if point[1] is not None]
            if not points:
                continue
            below = [value - (band.low if band else value) for _, value, band in points]
            above = [(band.high if band else value) - value for _, value, band in points]
            axis.errorbar([p[0] for p in points], [p[1] for p in points], yerr=[below, above], **style)
            banded = [(x, band.low, band.high) for x, _, band in points if band]
            if len(banded) > 1:
                axis.fill_between(*zip(*banded, strict=True), color=color, alpha=0.10, linewidth=0)
        known = [(x, r.accuracy) for x, r in rows if r.accuracy is not None]
        if known:
            right.errorbar([x for x, _ in known], [a for _, a in known], **style)
    left.set_ylabel("EPI / EPI of baseline (same layout)")
    middle.set_ylabel("J/token / J/token of baseline")
    right.set_ylabel("composite accuracy (fraction)")
    for axis in (left, middle):
        axis.axhline(1.0, color="0.6", linewidth=0.8, zorder=0)
    for axis in (left, middle, right):
        axis.set_xlabel("experts dropped per layer of the group")
        axis.grid(alpha=0.25)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(title="layers", fontsize=8, title_fontsize=8)
    return figure


def _belongs(item: Configuration, group: str) -> bool:
    """Baselines start the curves of their layout: the uniform one `all`, the control early and late."""
    if item.serving:
        return False  # depth is one question, serving another
    if item.depth == 0:
        return (item.layout == "uniform") == (group == "all")
    return item.group == group
