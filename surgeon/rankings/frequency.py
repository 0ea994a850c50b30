"""Frequency: how many tokens route to an expert, |T_j|."""

from typing import ClassVar

import numpy as np

from surgeon.rankings.base import Array, Ranking, RankingInputs


class Frequency(Ranking):
    """See the module."""

    name: ClassVar = "frequency"
    source: ClassVar = "Muzio et al., SEER-MoE, arXiv 2404.05089"
    statistics: ClassVar = ("selections",)

    def saliency(self, inputs: RankingInputs) -> Array:
        """Return [layer, expert]; the lowest are dropped first."""
        return inputs.total("selections").astype(np.float64)


RANKING = Frequency
