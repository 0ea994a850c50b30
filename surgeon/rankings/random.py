"""Random, seeded: the control that every other method has to beat."""

import numpy as np

from surgeon.rankings.base import Array, RankingInputs


class Random:
    """See the module."""

    name = "random"
    source = "control"
    needs = "nothing"

    def saliency(self, inputs: RankingInputs) -> Array:
        """Return [layer, expert] drawn uniformly with the seed; the lowest are dropped first."""
        return np.random.default_rng(inputs.seed).random((inputs.n_layers, inputs.n_experts))
