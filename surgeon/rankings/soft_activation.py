"""Soft activation: the sum of the router's probability over all tokens, selected or not."""

from surgeon.rankings.base import Array, RankingInputs


class SoftActivation:
    """See the module."""

    name = "soft_activation"
    source = "Muzio et al., SEER-MoE, arXiv 2404.05089"
    needs = "statistics"

    def saliency(self, inputs: RankingInputs) -> Array:
        """Return [layer, expert]; the lowest are dropped first."""
        return inputs.total("softmax_sum")
