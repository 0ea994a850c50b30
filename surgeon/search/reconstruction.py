"""NAEE: per layer, the subset of experts that changes the layer's output least on calibration tokens.

Lu et al., "Not All Experts are Equal", arXiv 2402.14800: of all subsets C of r experts, the one that minimises
||F'(x, C) - F(x)||_F, where F' masks the dropped experts' logits with -inf before softmax, top-k and renormalisation.

All subsets are tried where their number allows (`exhaustive`). Elsewhere experts are dropped one at a time, each time
the one whose loss is smallest, and then swapped for dropped ones while that helps: not the published method, and named
for what it is (`greedy with swaps`).

The loss of a subset needs no forward pass: with o_j the experts' outputs and d_j the change of their gates, the squared
loss of a token is d^T G d with G = O O^T, computed once.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.kernel.errors import ConfigurationError
from shared.kernel.progress import Count

Array = npt.NDArray[Any]
"""(subsets evaluated, subsets expected)"""
MAX_SUBSETS: Final = 50_000
_PUBLISH_EVERY: Final = 500


@dataclass(frozen=True)
class Subset:
    """What was found for one layer."""

    kept: tuple[int, ...]
    loss: float
    """Frobenius norm of the change of the layer's output."""
    n_evaluated: int
    exhaustive: bool


class ReconstructionLoss:
    """The loss of any subset of one layer's experts on one sample of tokens."""

    def __init__(
        self, probabilities: Array, outputs: Array, experts_per_token: int, *, normalises: bool = True
    ) -> None:  # fmt: skip
        """Prepare.

        Args:
            probabilities: [T, E] softmax of the router.
            outputs: [E, T, d] what each expert says to each token.
            experts_per_token: k.
            normalises: whether the graph divides gates by their sum over the chosen experts. Where it does not, they
                are a softmax over all experts that are left.
        """
        self._normalises = normalises
        self.n_experts = probabilities.shape[1]
        self._k = experts_per_token
        self._probabilities = probabilities.astype(np.float64)
        self._order = np.argsort(-self._probabilities, axis=1, kind="stable")
        by_token = outputs.transpose(1, 0, 2).astype(np.float64)
        self._gram = by_token @ by_token.transpose(0, 2, 1)
        self._full = self._gates(np.ones(self.n_experts, bool))

    def _gates(self, kept: Array) -> Array:
        """Return the final gates [T, E] when only `kept` [E] can be selected."""
        allowed = kept[self._order]
        chosen = allowed & (np.cumsum(allowed, axis=1) <= self._k)
        gates = np.zeros_like(self._probabilities)
        np.put_along_axis(gates, self._order, chosen, axis=1)
        gates *= self._probabilities
        shared_by = gates if self._normalises else self._probabilities * kept
        return np.asarray(gates / shared_by.sum(axis=1, keepdims=True))

    def __call__(self, subset: tuple[int, ...]) -> float:
        """Return ||F'(x, subset) - F(x)||_F over the sample."""
        kept = np.zeros(self.n_experts, bool)
        kept[list(subset)] = True
        change = self._gates(kept) - self._full
        squares = np.einsum("te,te->", change, np.einsum("tef,tf->te", self._gram, change))
        return math.sqrt(max(float(squares), 0.0))


def n_subsets(n_experts: int, keep: int) -> int:
    """Return how many subsets an exhaustive search of one layer tries: stated before it starts."""
    return math.comb(n_experts, keep)


def search_layer(
    loss: ReconstructionLoss, keep: int, *, max_subsets: int = MAX_SUBSETS, on_progress: Count | None = None
) -> Subset:
    """Find the `keep` experts of least loss; ties keep the lexicographically first.

    Raises:
        ConfigurationError: fewer experts than are active per token, or more than there are.
    """
    if not loss._k <= keep <= loss.n_experts:
        raise ConfigurationError(f"{keep} of {loss.n_experts} experts cannot be kept with {loss._k} active per token")
    total = n_subsets(loss.n_experts, keep)
    counter = _Counter(loss, total if total <= max_subsets else 0, on_progress)
    if total <= max_subsets:
        best = _best(counter, itertools.combinations(range(loss.n_experts), keep))
    else:
        best = _greedy(counter, loss.n_experts, keep)
    return Subset(best[1], best[0], counter.count, total <= max_subsets)


class _Counter:
    def __init__(self, loss: ReconstructionLoss, expected: int, on_progress: Count | None) -> None:
        self._loss, self._expected, self._publish = loss, expected, on_progress
        self.count = 0

    def __call__(self, subset: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        self.count += 1
        if self._publish is not None and self.count % _PUBLISH_EVERY == 0:
            self._publish(self.count, max(self._expected, self.count))
        return self._loss(subset), subset


def _best(counter: _Counter, subsets: Iterator[tuple[int, ...]]) -> tuple[float, tuple[int, ...]]:
    return min(map(counter, subsets))


def _greedy(counter: _Counter, n_experts: int, keep: int) -> tuple[float, tuple[int, ...]]:
    current = tuple(range(n_experts))
    while len(current) > keep:
        _, current = _best(counter, (tuple(e for e in current if e != dropped) for dropped in current))
    best = counter(current)
    while True:
        outside = [expert for expert in range(n_experts) if expert not in best[1]]
        swaps = (tuple(sorted({*best[1], entering} - {leaving})) for leaving in best[1] for entering in outside)
        better = _best(counter, swaps) if outside else best
        if better[0] >= best[0] * (1 - 1e-9):
            return best
        best = better
