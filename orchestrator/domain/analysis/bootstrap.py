"""Joint paired bootstrap over a campaign: questions in clusters, the same for all configurations, and energies.

Clusters are drawn with replacement within their field and used for every configuration at once, so that difficulty
cancels in ratios. Energies are drawn from the pooled repetition spread (three repetitions are too few to resample);
the spread itself is drawn from its chi-square law.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.domain.analysis.campaign_data import CampaignData
from orchestrator.domain.analysis.paired import energy_ratio, energy_spread
from orchestrator.domain.arrays import Floats, median_factor

DRAWS = 2000
SEED = 20_260_101
_CHUNK = 250


@dataclass(frozen=True)
class Draws:
    """[B, C] joint draws: ln(J/token) ratio to the reference, composite accuracy, ln(EPI ratio), ln(EPI) itself.

    NaN where the energy's spread is unknown. ln(EPI) is without the instrument's gain, which no repetition shows.
    """

    log_j_ratio: Floats
    accuracy: Floats
    log_epi_ratio: Floats
    log_epi: Floats

    def interval(self, confidence: float = 0.95) -> tuple[Floats, Floats]:
        """Return percentile intervals [C] of ln(EPI ratio)."""
        return _percentiles(self.log_epi_ratio, confidence)

    def interval_of_epi(self, confidence: float = 0.95) -> tuple[Floats, Floats]:
        """Return percentile intervals [C] of ln(EPI), without the instrument."""
        return _percentiles(self.log_epi, confidence)


def joint_draws(data: CampaignData, *, draws: int = DRAWS, seed: int = SEED) -> Draws:
    """Draw the whole campaign `draws` times; deterministic for the same data and seed."""
    rng = np.random.default_rng(seed)
    accuracy = _accuracy_draws(data, draws, rng)
    log_j, own_log_j = _energy_draws(data, draws, rng)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_a = np.log(accuracy)
        ratio = log_j - (log_a - log_a[:, data.reference])
        own = own_log_j - log_a
    return Draws(log_j, accuracy, ratio, own)


def _accuracy_draws(data: CampaignData, draws: int, rng: np.random.Generator) -> Floats:
    design, out = data.design, np.zeros((draws, len(data.configurations)))
    for number, weight in enumerate(design.weights):
        own = np.flatnonzero(design.field == number)
        stacked = np.vstack([data.sums[:, own], design.sizes[own]]).T
        for start in range(0, draws, _CHUNK):
            count = min(_CHUNK, draws - start)
            times = rng.multinomial(own.size, np.full(own.size, 1 / own.size), size=count).astype(np.float64)
            totals = times @ stacked
            out[start : start + count] += weight * totals[:, :-1] / totals[:, -1:]
    return out


def _percentiles(values: Floats, confidence: float) -> tuple[Floats, Floats]:
    low, high = np.quantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0)
    return low, high


def _energy_draws(data: CampaignData, draws: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return ([B, C] ln of J/token ratios, [B, C] ln of J/token), drawn with the same noise."""
    centre, common = energy_ratio(data.log_j, data.reference)
    variance, freedom = energy_spread(data.log_j)
    own = data.reference == np.arange(data.reference.size)
    if not np.isfinite(variance):
        unknown = np.full((draws, own.size), np.nan)
        return np.where(own, 0.0, unknown), unknown
    sigma = np.sqrt(variance * freedom / rng.chisquare(freedom, draws))
    noise = rng.standard_normal((draws, own.size)) * sigma[:, None]
    runs = (~np.isnan(data.log_j)).sum(-1)
    ratio = centre + _scale(common) * (noise - noise[:, data.reference])
    return np.where(own, 0.0, ratio), np.nanmedian(data.log_j, -1) + _scale(runs) * noise


def _scale(counts: NDArray[np.float64] | NDArray[np.int64]) -> Floats:
    """Return the standard error of a median of n values of unit spread; NaN without any."""
    return np.array([np.sqrt(median_factor(int(n)) / n) if n else np.nan for n in counts])
