"""Weighted EAN: the sum of g_j ||f_j(x)|| over the tokens routed to the expert."""

from surgeon.rankings.base import Array, RankingInputs


class WeightedEan:
    """See the module."""

    name = "weighted_ean"
    source = "Lasby et al., REAP, arXiv 2510.13999 (the sum that REAP averages)"
    needs = "statistics"

    def saliency(self, inputs: RankingInputs) -> Array:
        """Return [layer, expert]; the lowest are dropped first."""
        return inputs.total("gate_norm_sum")
