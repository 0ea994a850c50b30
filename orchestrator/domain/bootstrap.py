"""Joint paired bootstrap over a campaign: questions in clusters, the same for all configurations, and energies.

Clusters are drawn with replacement within their field and used for every configuration at once, so that difficulty
cancels in ratios. Energies are drawn from the pooled repetition spread (three repetitions are too few to resample);
the spread itself is drawn from its chi-square law.
"""

from dataclasses import dataclass

import numpy as np

from orchestrator.domain.campaign_data import CampaignData
from orchestrator.domain.paired import Floats, accuracies, energy_ratio, energy_spread, median_factor

DRAWS = 2000
SEED = 20_260_101
_CHUNK = 250


@dataclass(frozen=True)
class Draws:
    """[B, C] joint draws: ln(J/token) ratio to the reference, composite accuracy, ln(EPI ratio); NaN where unknown."""

    log_j_ratio: Floats
    accuracy: Floats
    log_epi_ratio: Floats

    def interval(self, confidence: float = 0.95) -> tuple[Floats, Floats]:
        """Return percentile intervals [C] of ln(EPI ratio)."""
        low, high = np.quantile(self.log_epi_ratio, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0)
        return low, high


def joint_draws(data: CampaignData, *, draws: int = DRAWS, seed: int = SEED) -> Draws:
    """Draw the whole campaign `draws` times; deterministic for the same data and seed."""
    rng = np.random.default_rng(seed)
    accuracy = _accuracy_draws(data, draws, rng)
    log_j = _energy_draws(data, draws, rng)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_a = np.log(accuracy)
        ratio = log_j - (log_a - log_a[:, data.reference])
    return Draws(log_j, accuracy, ratio)


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


def _energy_draws(data: CampaignData, draws: int, rng: np.random.Generator) -> Floats:
    centre, common = energy_ratio(data.log_j, data.reference)
    variance, freedom = energy_spread(data.log_j)
    own = data.reference == np.arange(data.reference.size)
    if not np.isfinite(variance):
        return np.where(own, 0.0, np.full((draws, own.size), np.nan))
    sigma = np.sqrt(variance * freedom / rng.chisquare(freedom, draws))
    scale = np.array([np.sqrt(median_factor(int(n)) / n) if n else np.nan for n in common])
    noise = rng.standard_normal((draws, own.size))
    reference_noise = rng.standard_normal((draws, own.size))[:, data.reference]
    return np.where(own, 0.0, centre + sigma[:, None] * scale * (noise + reference_noise))


def full_accuracy(data: CampaignData) -> Floats:
    """Return [C] composite accuracy over all common questions."""
    return accuracies(data.sums, data.design)[0]
