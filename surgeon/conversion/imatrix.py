"""An importance matrix for llama.cpp's quantiser out of observed statistics, cut like the model.

The importance of an input column is its mean square over the tokens that the expert saw. Only expert tensors have
entries: attention is not observed here, and quantisations that need a matrix for it are refused by llama.cpp.
"""

import numpy as np
import numpy.typing as npt

from shared.kernel.errors import ConfigurationError
from shared.kernel.records import SurgeryPlan
from surgeon.observation.statistics import Statistics


def importance_matrix(statistics: Statistics, plan: SurgeryPlan | None = None) -> dict[str, npt.NDArray[np.float32]]:
    """Return mean squares by tensor name, [experts * columns]; with a uniform plan, of the kept experts only.

    An expert that no token selected counts 1 everywhere, as in llama.cpp's own tool: no column is preferred.

    Raises:
        ConfigurationError: observed without columns, or a plan for another model.
    """
    inputs, inner = statistics.total("input_square_sum"), statistics.total("inner_square_sum")
    counts = statistics.total("selections")[..., None]
    if plan is not None and (plan.n_layers, plan.n_experts) != counts.shape[:2]:
        raise ConfigurationError("plan and statistics are of different models")
    result: dict[str, npt.NDArray[np.float32]] = {}
    for row, layer in enumerate(statistics.provenance.layers or range(len(counts))):
        kept = slice(None) if plan is None or plan.layout == "biased" else list(plan.kept[row])
        for parts, sums in ((("gate", "up", "gate_up"), inputs), (("down",), inner)):
            means = np.where(counts[row] > 0, sums[row] / np.maximum(counts[row], 1), 1.0)[kept]
            for part in parts:
                result[f"blk.{layer}.ffn_{part}_exps.weight"] = means.astype(np.float32).reshape(-1)
    return result
