"""EAN, expert activation norm: the sum of ||f_j(x)|| over the tokens routed to the expert."""

from typing import ClassVar

from surgeon.rankings.base import Array, Ranking, RankingInputs


class Ean(Ranking):
    """See the module."""

    name: ClassVar = "ean"
    source: ClassVar = "Jaiswal et al., arXiv 2504.05586; Lasby et al., REAP, arXiv 2510.13999"
    statistics: ClassVar = ("norm_sum",)

    def saliency(self, inputs: RankingInputs) -> Array:
        """Return [layer, expert]; the lowest are dropped first."""
        return inputs.total("norm_sum")


RANKING = Ean
