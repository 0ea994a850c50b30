"""Merge matrices as arrays, for the search that evolves them; a plan carries them as `MergeMatrices`.

Each new expert is a weighted sum of old ones, and so is its router row. One-hot matrices are plain dropping. Source:
the merge phase of EEP, Liu et al., arXiv 2407.00945. How a plan with matrices is applied: `shared.checkpoints.merging`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.kernel.errors import ConfigurationError
from shared.kernel.records import MergeMatrices, SurgeryPlan

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class MergeArrays:
    """[layer, new, old] float64 weights of experts and of router rows."""

    experts: Array
    routers: Array

    @classmethod
    def of_plan(cls, plan: SurgeryPlan) -> "MergeArrays":
        """Return the plan's matrices, or without any the one-hot matrices that only drop.

        Raises:
            ConfigurationError: layers that keep different numbers.
        """
        if plan.merge is not None:
            return cls(np.array(plan.merge.experts), np.array(plan.merge.routers))
        if len({len(ids) for ids in plan.kept}) != 1:
            raise ConfigurationError("merging needs the same number of experts in every layer")
        one_hot = np.zeros((plan.n_layers, len(plan.kept[0]), plan.n_experts))
        for layer, ids in enumerate(plan.kept):
            one_hot[layer, np.arange(len(ids)), list(ids)] = 1.0
        return cls(one_hot, one_hot.copy())

    def record(self) -> MergeMatrices:
        """Return the matrices as a plan carries them."""
        return MergeMatrices(experts=self.experts.tolist(), routers=self.routers.tolist())


def merge_rows(matrix: Array, rows: Array) -> Array:
    """Return `matrix` [new, old] times `rows` [old, ...] in float32; one-hot rows copy exactly.

    By BLAS, many times faster than the sums of `shared.checkpoints.merging` and equal but for the last bits.
    """
    flat = rows.reshape(len(rows), -1).astype(np.float32)
    return np.asarray(matrix.astype(np.float32) @ flat, np.float32).reshape(len(matrix), *rows.shape[1:])
