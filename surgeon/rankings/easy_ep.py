"""EASY-EP: the sum of s_t g_j ||f_j(x)||, s_t = max(0, 1 - cos(h before, h after the routed experts))."""

from surgeon.rankings.base import Array, RankingInputs


class EasyEp:
    """See the module."""

    name = "easy_ep"
    source = "Dong et al., EASY-EP, arXiv 2504.06792"
    needs = "statistics"

    def saliency(self, inputs: RankingInputs) -> Array:
        """Return [layer, expert]; the lowest are dropped first."""
        return inputs.total("easy_sum")
