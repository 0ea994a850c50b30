"""Methods at equal depth: configurations that differ only in which experts went, compared pair by pair.

Both have the same reference, which cancels; questions are the same, energies are of interleaved repetitions. The
p-values of all pairs of a campaign are corrected together (Holm).
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from pydantic import Field
from scipy import stats

from orchestrator.domain.analysis.bootstrap import Draws
from orchestrator.domain.analysis.campaign_data import CampaignData
from orchestrator.domain.analysis.curve import contrast
from orchestrator.domain.analysis.paired import RatioTerms, holm
from orchestrator.domain.analysis.statistics import Comparison
from shared.kernel.records import ConfigurationId, LayerGroup, Record

LEVEL = 0.05
_Z95 = float(stats.norm.ppf(0.975))


class MethodPair(Record):
    """Two methods at one depth: ln(EPI of the first / EPI of the second)."""

    group: LayerGroup
    depth: int = Field(description="experts dropped in each layer of the group, by both")
    first: ConfigurationId
    second: ConfigurationId
    methods: tuple[str, str]
    log_epi_ratio: float
    interval: tuple[float, float] = Field(description="95 %, of this pair alone")
    adjusted_p_value: float = Field(description="two-sided, Holm over all pairs of methods")
    comparison: Comparison = Field(description="of the first against the second")


def method_pairs(data: CampaignData, terms: RatioTerms, draws: Draws) -> tuple[MethodPair, ...]:
    """Return every pair of methods that the campaign measured at equal depth; empty where the spread is unknown."""
    pairs = list(_pairs(data))
    rows = sorted({row for pair in pairs for row in pair})
    if not pairs or not np.isfinite(draws.log_epi_ratio[:, rows]).all():
        return ()
    found = [contrast(draws, terms.value, pair, np.array([1.0, -1.0])) for pair in pairs]
    p_values = np.array([2 * float(stats.norm.sf(abs(value) / error)) if error else 1.0 for value, error in found])
    adjusted = holm(p_values, np.ones(len(pairs), dtype=bool))
    return tuple(
        _pair(data, pair, value, error, float(p))
        for pair, (value, error), p in zip(pairs, found, adjusted, strict=True)
    )  # fmt: skip


def _pairs(data: CampaignData) -> Iterator[tuple[int, int]]:
    """Yield the rows of configurations that differ in nothing but the method."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for row, item in enumerate(data.configurations):
        if item.depth > 0:
            key = (item.group, item.depth, item.layout, item.serving, int(data.reference[row]))
            alike.setdefault(key, []).append(row)
    for rows in alike.values():
        yield from combinations(rows, 2)


def _pair(data: CampaignData, rows: tuple[int, int], value: float, error: float, p_value: float) -> MethodPair:
    first, second = (data.configurations[row] for row in rows)
    comparison: Comparison = "not distinguishable"
    if p_value < LEVEL:
        comparison = "better" if value < 0 else "worse"
    return MethodPair(
        group=first.group, depth=first.depth, first=first.id, second=second.id, methods=(first.method, second.method),
        log_epi_ratio=value, interval=(value - _Z95 * error, value + _Z95 * error), adjusted_p_value=p_value,
        comparison=comparison,
    )  # fmt: skip
