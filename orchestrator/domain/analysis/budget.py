"""The uncertainty budget of one configuration's EPI in the manner of the GUM: components, combined, expanded.

All entries are relative standard uncertainties of EPI (its model is a product, so every sensitivity is 1 in
logarithms). Source: JCGM 100:2008, 5.1 and annex G.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import median
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import stats

from orchestrator.domain.analysis.campaign_data import CampaignData
from orchestrator.domain.analysis.paired import accuracies, accuracy_variance, energy_spread, influences
from orchestrator.domain.arrays import median_factor
from orchestrator.domain.run.evaluate import RunEvaluation
from shared.kernel.records import Record


class Component(Record):
    """One source of uncertainty."""

    name: str
    kind: Literal["A", "B"] = Field(description="A: from repeated observation; B: from other knowledge")
    relative: float | None = Field(description="1 sigma, relative; null when unknown")
    degrees_of_freedom: float | None = Field(default=None, description="null: infinite or unknown")
    counted: bool = Field(default=True, description="False: already contained in another component")
    note: str = ""


class Budget(Record):
    """The components and what they make together; null with a reason when a counted component is unknown."""

    components: tuple[Component, ...]
    combined: float | None = None
    degrees_of_freedom: float | None = None
    coverage_factor: float | None = None
    expanded: float | None = Field(default=None, description="95 % relative uncertainty")
    reason: str = ""


def budget(data: CampaignData, row: int, runs: Sequence[RunEvaluation]) -> Budget:
    """Return the budget of configuration `row`, whose valid runs are given.

    The lag is fitted anew in each run, so with repetitions its error shows in their spread and is not counted twice.
    """
    variance, freedom = energy_spread(data.log_j)
    n = int((~np.isnan(data.log_j[row])).sum())
    spread = sqrt(float(variance) * median_factor(n) / n) if np.isfinite(variance) and n else None
    composite = float(accuracies(data.sums, data.design)[0][row])
    if composite <= 0:
        return Budget(components=(), reason="no common question was answered correctly")
    questions, freedom_q = accuracy_variance(
        influences(data.sums, data.design)[row], data.design, np.asarray(1 / composite**2)
    )
    lags = [run.uncertainty.lag for run in runs if run.uncertainty.lag is not None]
    instrument = runs[0].uncertainty.instrument
    components: tuple[Component, ...] = (
        Component(
            name="repetition", kind="A", relative=spread, degrees_of_freedom=freedom or None,
            note=f"median of {n}; spread pooled over all configurations",
        ),
        Component(
            name="questions", kind="A", relative=_finite(sqrt(float(questions))),
            degrees_of_freedom=_finite(float(freedom_q)), note="sampling of questions, clustered by subject",
        ),
        Component(name="instrument", kind="B", relative=instrument, note="gain of the meter; cancels in ratios"),
        Component(
            name="alignment", kind="A", relative=median(lags) if lags else None, counted=spread is None,
            note="edge power swing x lag uncertainty; contained in the repetition spread",
        ),
    )  # fmt: skip
    carried = [run.uncertainty.carried for run in runs if run.uncertainty.carried is not None]
    if carried:
        components += (
            Component(
                name="carried accuracy", kind="A", relative=max(carried),
                note="scored elsewhere; from the cluster's own answers to a sample",
            ),
        )  # fmt: skip
    return combine(components)


def combine(components: Sequence[Component]) -> Budget:
    """Combine independent components by root sum of squares, with Welch-Satterthwaite degrees of freedom."""
    counted = [part for part in components if part.counted]
    unknown = [part.name for part in counted if part.relative is None]
    if unknown:
        return Budget(components=tuple(components), reason=f"unknown: {', '.join(unknown)}")
    squares = [(part.relative or 0.0) ** 2 for part in counted]
    total = sum(squares)
    lost = sum(
        square**2 / part.degrees_of_freedom
        for square, part in zip(squares, counted, strict=True)
        if part.degrees_of_freedom is not None
    )
    freedom = total**2 / lost if lost > 0 else np.inf
    factor = float(stats.t.ppf(0.975, freedom))
    return Budget(
        components=tuple(components),
        combined=sqrt(total),
        degrees_of_freedom=_finite(freedom),
        coverage_factor=factor,
        expanded=factor * sqrt(total),
    )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
