"""Forbid experts while the model runs: -inf into the router's logits, as if the experts were not in the file.

Any subset can be scored without writing a file; that is the fitness of the searches. Exact: the probabilities of the
others are those of a file without the dropped experts (llama.cpp takes softmax, top-k and weights from these logits).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shared.kernel.errors import ConfigurationError
from shared.kernel.records import SurgeryPlan
from shared.llama import model as llama


class ExpertMask:
    """An eval callback that hides experts; what it hides can be changed between two evaluations."""

    def __init__(self, n_layers: int, n_experts: int) -> None:
        self._shape = (n_layers, n_experts)
        self._layers = {f"ffn_moe_logits-{layer}".encode(): layer for layer in range(n_layers)}
        self._hidden: list[npt.NDArray[np.int64] | None] = [None] * n_layers
        self.layers_seen = 0

    def keep(self, kept: Sequence[Sequence[int]] | None) -> None:
        """Hide all but `kept[layer]`; None hides nothing.

        Raises:
            ConfigurationError: another number of layers, or a layer that keeps nothing.
        """
        n_layers, n_experts = self._shape
        if kept is None:
            self._hidden = [None] * n_layers
            return
        if len(kept) != n_layers or any(not ids for ids in kept):
            raise ConfigurationError(f"a mask needs experts for each of {n_layers} layers")
        everything = set(range(n_experts))
        self._hidden = [np.asarray(sorted(everything - set(ids)), np.int64) for ids in kept]

    def __call__(self, tensor: llama.Tensor, ask: bool) -> bool:
        """Be the eval callback of a `shared.llama.model.Context`."""
        layer = self._layers.get(tensor.raw_name)
        if layer is None:
            return not ask
        hidden = self._hidden[layer]
        if ask:
            return hidden is not None and hidden.size > 0
        assert hidden is not None
        logits = tensor.read()
        logits[:, hidden] = -np.inf
        tensor.write(logits)
        self.layers_seen += 1
        return True


def mask_of(plan: SurgeryPlan) -> ExpertMask:
    """Return the mask that does what `plan` does to a file."""
    mask = ExpertMask(plan.n_layers, plan.n_experts)
    mask.keep(plan.kept)
    return mask
