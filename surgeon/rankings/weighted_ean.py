"""Weighted EAN: the sum of g_j ||f_j(x)|| over the tokens routed to the expert."""

from typing import ClassVar

from surgeon.rankings.base import Array, Ranking, RankingInputs


class WeightedEan(Ranking):
    """See the module."""

    name: ClassVar = "weighted_ean"
    source: ClassVar = "Lasby et al., REAP, arXiv 2510.13999 (the sum that REAP averages)"
    statistics: ClassVar = ("gate_norm_sum",)

    def saliency(self, inputs: RankingInputs) -> Array:
        """Return [layer, expert]; the lowest are dropped first."""
        return inputs.total("gate_norm_sum")


RANKING = WeightedEan
