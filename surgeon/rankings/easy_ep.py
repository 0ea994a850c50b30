"""EASY-EP: the sum of s_t g_j ||f_j(x)||, s_t = max(0, 1 - cos(h before, h after the routed experts))."""

from typing import ClassVar

from surgeon.rankings.base import Array, Ranking, RankingInputs


class EasyEp(Ranking):
    """See the module."""

    name: ClassVar = "easy_ep"
    source: ClassVar = "Dong et al., EASY-EP, arXiv 2504.06792"
    statistics: ClassVar = ("easy_sum",)

    def saliency(self, inputs: RankingInputs) -> Array:
        """Return [layer, expert]; the lowest are dropped first."""
        return inputs.total("easy_sum")


RANKING = EasyEp
