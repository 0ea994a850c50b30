"""Pruned at q bits against unpruned at fewer bits: two ways to the same bytes, compared where both were measured.

Both have the same reference, which cancels; intervals are of each pair alone and not corrected: the pairs are chosen by
their bytes, so they explore. A pair that is to be tested is named under `references` in the spec.
"""

from collections.abc import Mapping

import numpy as np
from pydantic import Field
from scipy import stats

from orchestrator.domain.analysis.bootstrap import Draws
from orchestrator.domain.analysis.campaign_data import CampaignData
from orchestrator.domain.analysis.curve import contrast
from orchestrator.domain.analysis.paired import RatioTerms
from shared.kernel.records import Configuration, ConfigurationId, Record

ALIKE = 0.15
"""How far apart the bytes of two files may be that are said to be the same, as a share of the larger."""
_Z95 = float(stats.norm.ppf(0.975))


class IsoMemoryPair(Record):
    """A pruned configuration and the unpruned one whose file comes nearest to its bytes."""

    pruned: ConfigurationId
    pruned_bytes: int
    unpruned: ConfigurationId | None = Field(description="null: none of about these bytes was measured")
    unpruned_bytes: int | None = None
    log_epi_ratio: float | None = Field(default=None, description="ln(EPI pruned / EPI unpruned); null: not comparable")
    interval: tuple[float, float] | None = Field(default=None, description="95 %, of this pair alone")


def iso_memory_pairs(
    data: CampaignData, terms: RatioTerms, draws: Draws, file_bytes: Mapping[ConfigurationId, int]
) -> tuple[IsoMemoryPair, ...]:
    """Return a pair for each pruned configuration that makes the file smaller; `file_bytes` are calculated."""
    rows = {item.id: row for row, item in enumerate(data.configurations)}
    found = []
    for item in data.configurations:
        size = file_bytes.get(item.id)
        if item.is_pruned and item.layout == "uniform" and size is not None:
            found.append(_pair(item, size, data, terms, draws, file_bytes, rows))
    return tuple(found)


def _pair(
    item: Configuration, size: int, data: CampaignData, terms: RatioTerms, draws: Draws,
    file_bytes: Mapping[ConfigurationId, int], rows: Mapping[ConfigurationId, int],
) -> IsoMemoryPair:  # fmt: skip
    row = rows[item.id]
    others = [
        other
        for other in data.configurations
        if not other.is_pruned and other.layout == "uniform" and other.quantization != item.quantization
        and other.id in file_bytes and int(data.reference[rows[other.id]]) == int(data.reference[row])
        and abs(file_bytes[other.id] - size) <= ALIKE * max(file_bytes[other.id], size)
    ]  # fmt: skip
    if not others:
        return IsoMemoryPair(pruned=item.id, pruned_bytes=size, unpruned=None)
    nearest = min(others, key=lambda other: (abs(file_bytes[other.id] - size), other.id))
    pair = (row, rows[nearest.id])
    bare = IsoMemoryPair(
        pruned=item.id, pruned_bytes=size, unpruned=nearest.id, unpruned_bytes=file_bytes[nearest.id]
    )  # fmt: skip
    if not np.isfinite(draws.log_epi_ratio[:, list(pair)]).all():
        return bare
    value, error = contrast(draws, terms.value, pair, np.array([1.0, -1.0]))
    interval = (value - _Z95 * error, value + _Z95 * error)
    return bare.model_copy(update={"log_epi_ratio": value, "interval": interval})
