"""EPI against pruning depth: the series of each layer group, and the chance of each depth being the operating point."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from orchestrator.domain.analysis.bootstrap import Draws
from orchestrator.domain.analysis.campaign_data import CampaignData
from orchestrator.domain.arrays import Floats
from orchestrator.domain.campaign.cells import GROUPS, layout_of
from orchestrator.domain.campaign.matrix import reference_of
from shared.kernel.records import ConfigurationId, LayerGroup, Record


@dataclass(frozen=True)
class Series:
    """One layer group: rows of the campaign's arrays by ascending depth, the baseline of its layout first."""

    group: LayerGroup
    depths: tuple[int, ...]
    rows: tuple[int, ...]


class DepthChance(Record):
    """How probable it is that a depth has the lowest EPI of its group."""

    depth: int
    configuration_id: ConfigurationId
    probability: float


class OperatingPoint(Record):
    """The operating point of a layer group, as probabilities of the joint bootstrap, not only as an argmin."""

    group: LayerGroup
    chances: tuple[DepthChance, ...]
    most_probable: ConfigurationId
    probability_interior: float = Field(description="that the lowest EPI is neither at depth 0 nor at the last depth")


class BestChance(Record):
    """How probable it is that a configuration has the lowest EPI ratio of the whole campaign."""

    configuration_id: ConfigurationId
    probability: float


def series_of(data: CampaignData, group: LayerGroup) -> Series | None:
    """Return the series of a group in the usual serving, or None without at least one variant of it.

    Depth is one question and serving another: variants on fewer nodes, say, would bend the curve of depth.
    """
    rows = [
        (item.depth, row)
        for row, item in enumerate(data.configurations)
        if item.group == group and item.depth > 0 and item.layout == layout_of(group) and item.is_usual_cell
    ]
    if not rows:
        return None
    reference = data.index(reference_of(data.configurations[rows[0][1]]))
    if reference is None:
        return None
    rows = sorted([(0, reference), *rows])
    return Series(group, tuple(depth for depth, _ in rows), tuple(row for _, row in rows))


def all_series(data: CampaignData) -> tuple[Series, ...]:
    """Return the series of every group that has variants."""
    return tuple(series for group in GROUPS if (series := series_of(data, group)) is not None)


def operating_point(data: CampaignData, draws: Draws, series: Series) -> OperatingPoint | None:
    """Return how often each depth has the lowest EPI in the joint draws; None when energies have no known spread."""
    values = draws.log_epi_ratio[:, list(series.rows)]
    if not np.isfinite(values).all():
        return None
    lowest = values.argmin(-1)
    share = np.bincount(lowest, minlength=len(series.rows)) / len(values)
    names = [data.configurations[row].id for row in series.rows]
    return OperatingPoint(
        group=series.group,
        chances=tuple(
            DepthChance(depth=depth, configuration_id=name, probability=float(p))
            for depth, name, p in zip(series.depths, names, share, strict=True)
        ),
        most_probable=names[int(share.argmax())],
        probability_interior=float(share[1:-1].sum()),
    )


def best_chances(data: CampaignData, draws: Draws) -> tuple[BestChance, ...]:
    """Return how often each configuration has the lowest EPI ratio of all; empty when the spread is unknown."""
    if not np.isfinite(draws.log_epi_ratio).all():
        return ()
    lowest = data.to_root(draws.log_epi_ratio).argmin(-1)
    share = np.bincount(lowest, minlength=len(data.configurations)) / len(lowest)
    return tuple(
        BestChance(configuration_id=item.id, probability=float(p))
        for item, p in zip(data.configurations, share, strict=True)
    )


def contrast(draws: Draws, values: Floats, rows: Sequence[int], weights: Floats) -> tuple[float, float]:
    """Return (estimate, standard error) of a weighted sum of ln(EPI ratio) over rows, from the joint draws' covariance.

    With weights that add up to 0 the result does not depend on which configuration is the reference.
    """
    drawn = draws.log_epi_ratio[:, list(rows)] @ weights
    return float(values[list(rows)] @ weights), float(drawn.std(ddof=1))
