"""REAP: (1/|T_j|) times the sum of g_j ||f_j(x)||_2; an expert that was never selected counts 0."""

from typing import ClassVar

import numpy as np

from surgeon.rankings.base import Array, Ranking, RankingInputs


class Reap(Ranking):
    """See the module."""

    name: ClassVar = "reap"
    source: ClassVar = "Lasby et al., REAP, arXiv 2510.13999"
    statistics: ClassVar = ("selections", "gate_norm_sum")

    def saliency(self, inputs: RankingInputs) -> Array:
        """Return [layer, expert]; the lowest are dropped first."""
        counts = inputs.total("selections")
        return np.where(counts > 0, inputs.total("gate_norm_sum") / np.maximum(counts, np.finfo(float).tiny), 0.0)


RANKING = Reap
