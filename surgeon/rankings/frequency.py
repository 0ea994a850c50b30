"""Frequency: how many tokens route to an expert, |T_j|."""

import numpy as np

from surgeon.rankings.base import Array, RankingInputs


class Frequency:
    """See the module."""

    name = "frequency"
    source = "Muzio et al., SEER-MoE, arXiv 2404.05089"
    needs = "statistics"

    def saliency(self, inputs: RankingInputs) -> Array:
        """Return [layer, expert]; the lowest are dropped first."""
        return inputs.total("selections").astype(np.float64)
