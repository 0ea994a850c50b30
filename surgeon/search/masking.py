"""Forbid experts while the model runs, as if they were not in the file, or as if their selection were forbidden.

Any subset can be scored without writing a file; that is the fitness of the searches. Which tensors of the graph are
overwritten decides which surgery it is. `uniform`: -inf into the router's logits, so that softmax, top-k and weights
are those of a file without the experts; and into the biased probabilities where the graph has them, since a sigmoid of
0 plus a bias could still be chosen. `biased`: -inf into the biased probabilities only, so that the forbidden experts
keep their share of a softmax. `shared.checkpoints.gguf_experts.Routing` says where both are one.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shared.kernel.errors import ConfigurationError
from shared.kernel.records import Layout
from shared.llama import model as llama


class ExpertMask:
    """An eval callback that hides experts; what it hides can be changed between two evaluations."""

    def __init__(self, layers: Sequence[int], n_experts: int, layout: Layout = "uniform") -> None:
        """Hide nothing yet.

        Args:
            layers: numbers of the layers with experts (`shared.checkpoints.gguf_experts.expert_layers`).
            n_experts: experts in each.
            layout: the surgery that is imitated; `biased` needs a file with a selection bias.
        """
        self._n_experts = n_experts
        names = ("ffn_moe_logits", "ffn_moe_probs_biased") if layout == "uniform" else ("ffn_moe_probs_biased",)
        self._rows = {f"{name}-{layer}".encode(): row for row, layer in enumerate(layers) for name in names}
        self._hidden: list[npt.NDArray[np.int64] | None] = [None] * len(layers)
        self.layers_seen = 0

    def keep(self, kept: Sequence[Sequence[int]] | None) -> None:
        """Hide all but `kept[row]` of each layer with experts; None hides nothing.

        Raises:
            ConfigurationError: another number of layers, or a layer that keeps nothing.
        """
        n_layers = len(self._hidden)
        if kept is None:
            self._hidden = [None] * n_layers
            return
        if len(kept) != n_layers or any(not ids for ids in kept):
            raise ConfigurationError(f"a mask needs experts for each of {n_layers} layers")
        everything = set(range(self._n_experts))
        self._hidden = [np.asarray(sorted(everything - set(ids)), np.int64) for ids in kept]

    def __call__(self, tensor: llama.Tensor, ask: bool) -> bool:
        """Be the eval callback of a `shared.llama.model.Context`."""
        row = self._rows.get(tensor.raw_name)
        if row is None:
            return not ask
        hidden = self._hidden[row]
        if ask:
            return hidden is not None and hidden.size > 0
        assert hidden is not None
        values = tensor.read()
        values[:, hidden] = -np.inf
        tensor.write(values)
        self.layers_seen += 1
        return True
