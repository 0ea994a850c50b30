"""The mask that does to a running model what a plan does to a file."""

from collections.abc import Sequence

from shared.kernel.records import Layout, SurgeryPlan
from surgeon.search.masking import ExpertMask


def mask_of(plan: SurgeryPlan, layers: Sequence[int] | None = None, layout: Layout = "uniform") -> ExpertMask:
    """Return the mask that hides what `plan` drops; `layers` are those with experts, all by default."""
    mask = ExpertMask(range(plan.n_layers) if layers is None else layers, plan.n_experts, layout)
    mask.keep(plan.kept)
    return mask
