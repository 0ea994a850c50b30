"""Random, seeded: the control that every other method has to beat."""

from typing import ClassVar

import numpy as np

from surgeon.rankings.base import Array, Ranking, RankingInputs


class Random(Ranking):
    """See the module."""

    name: ClassVar = "random"
    source: ClassVar = "control"

    seed: int = 0

    def saliency(self, inputs: RankingInputs) -> Array:
        """Return [layer, expert] drawn uniformly with the seed; the lowest are dropped first."""
        return np.random.default_rng(self.seed).random((inputs.n_layers, inputs.n_experts))


RANKING = Random
