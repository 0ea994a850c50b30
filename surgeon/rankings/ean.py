"""EAN, expert activation norm: the sum of ||f_j(x)|| over the tokens routed to the expert."""

from surgeon.rankings.base import Array, RankingInputs


class Ean:
    """See the module."""

    name = "ean"
    source = "Jaiswal et al., arXiv 2504.05586; Lasby et al., REAP, arXiv 2510.13999"
    needs = "statistics"

    def saliency(self, inputs: RankingInputs) -> Array:
        """Return [layer, expert]; the lowest are dropped first."""
        return inputs.total("norm_sum")
