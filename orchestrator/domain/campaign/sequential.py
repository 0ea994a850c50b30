"""Stopping a campaign early without more false alarms: group-sequential boundaries by error spending.

Lan and DeMets (1983) with the O'Brien-Fleming-like spending function 2 (1 - Phi(z_{alpha/4} / sqrt t)) for each of the
two sides; the boundaries come from integrating the Brownian path between analyses (Armitage, McPherson and Rowe 1969).
Over several variants Holm's steps are applied to the spending of each.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import optimize, stats

from orchestrator.domain.arrays import Floats
from shared.kernel.records import Record

_GRID = 801
_FARTHEST_Z = 12.0


class StoppingRule(Record):
    """Fixed before the campaign starts: when is analysed, and with how much error in all."""

    information: tuple[float, ...] = Field(
        min_length=1, description="share of the planned information at each analysis"
    )
    alpha: float = Field(default=0.05, gt=0, lt=1)
    target_half_width: float | None = Field(
        default=None, gt=0, description="stop when every 95 %% interval of ln(EPI ratio) is narrower than this"
    )


class Decision(Record):
    """What an interim analysis says."""

    analysis: int
    stop: bool
    named: tuple[bool, ...] = Field(description="per comparison: the difference is established")
    reason: Literal["every comparison is decided", "precise enough", "last analysis", "go on"]


@lru_cache(maxsize=512)
def nominal_levels(information: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """Return the two-sided p-value below which a difference is established at each analysis.

    Args:
        information: ascending shares of the planned information in (0, 1].
        alpha: two-sided error over all analyses.
    """
    spent = [4 * float(stats.norm.sf(stats.norm.ppf(1 - alpha / 4) / sqrt(t))) for t in information]
    levels: list[float] = []
    axis: Floats = np.zeros(1)
    mass: Floats = np.ones(1)
    before_t = before_alpha = 0.0
    for t, total in zip(information, spent, strict=True):
        step, due = sqrt(t - before_t), total - before_alpha

        def leaving(z: float, edge: float = sqrt(t), a: Floats = axis, m: Floats = mass, s: float = step) -> float:
            out = stats.norm.sf((z * edge - a) / s) + stats.norm.cdf((-z * edge - a) / s)
            return float(m @ out)

        if due <= leaving(_FARTHEST_Z):
            z = _FARTHEST_Z
        else:
            z = float(optimize.brentq(lambda x, f=leaving, d=due: f(x) - d, 0.0, _FARTHEST_Z, xtol=1e-10))
        levels.append(2 * float(stats.norm.sf(z)))
        grid = np.linspace(-z * sqrt(t), z * sqrt(t), _GRID)
        density = (mass * stats.norm.pdf((grid[:, None] - axis) / step) / step).sum(-1)
        weights = np.full(_GRID, grid[1] - grid[0])
        weights[[0, -1]] /= 2
        axis, mass = grid, density * weights
        before_t, before_alpha = t, total
    return tuple(levels)


def established(p_values: Floats, analysis: int, rule: StoppingRule) -> NDArray[np.bool_]:
    """Return which differences [..., m] are established at this analysis (0-based), by Holm's steps.

    The smallest p-value is held against the boundary of alpha/m, the next against that of alpha/(m - 1), until one
    fails.
    """
    m = p_values.shape[-1]
    limits = np.array([nominal_levels(rule.information, rule.alpha / (m - j))[analysis] for j in range(m)])
    order = np.argsort(p_values, -1)
    passed = np.logical_and.accumulate(np.take_along_axis(p_values, order, -1) < limits, -1)
    out = np.empty_like(passed)
    np.put_along_axis(out, order, passed, -1)
    return out


def decide(
    p_values: Sequence[float],
    half_widths: Sequence[float],
    analysis: int,
    rule: StoppingRule,
    earlier: Sequence[bool] = (),
) -> Decision:
    """Say whether the campaign may stop at this analysis; what was established earlier stays so."""
    now = established(np.asarray(p_values, dtype=np.float64), analysis, rule)
    named = now | np.asarray(earlier, dtype=bool) if len(earlier) else now
    flags = tuple(bool(flag) for flag in named)
    if all(flags):
        return Decision(analysis=analysis, stop=True, named=flags, reason="every comparison is decided")
    if analysis == len(rule.information) - 1:
        return Decision(analysis=analysis, stop=True, named=flags, reason="last analysis")
    if rule.target_half_width is not None and max(half_widths) <= rule.target_half_width:
        return Decision(analysis=analysis, stop=True, named=flags, reason="precise enough")
    return Decision(analysis=analysis, stop=False, named=flags, reason="go on")
