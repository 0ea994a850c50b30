"""REAP: (1/|T_j|) times the sum of g_j ||f_j(x)||_2; an expert that was never selected counts 0."""

import numpy as np

from surgeon.rankings.base import Array, RankingInputs


class Reap:
    """See the module."""

    name = "reap"
    source = "Lasby et al., REAP, arXiv 2510.13999"
    needs = "statistics"

    def saliency(self, inputs: RankingInputs) -> Array:
        """Return [layer, expert]; the lowest are dropped first."""
        counts = inputs.total("selections")
        return np.where(counts > 0, inputs.total("gate_norm_sum") / np.maximum(counts, np.finfo(float).tiny), 0.0)
