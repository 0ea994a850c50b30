"""Soft activation: the sum of the router's probability over all tokens, selected or not."""

from typing import ClassVar

from surgeon.rankings.base import Array, Ranking, RankingInputs


class SoftActivation(Ranking):
    """See the module."""

    name: ClassVar = "soft_activation"
    source: ClassVar = "Muzio et al., SEER-MoE, arXiv 2404.05089"
    statistics: ClassVar = ("softmax_sum",)

    def saliency(self, inputs: RankingInputs) -> Array:
        """Return [layer, expert]; the lowest are dropped first."""
        return inputs.total("softmax_sum")


RANKING = SoftActivation
