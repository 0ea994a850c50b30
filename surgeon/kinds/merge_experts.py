"""Merging experts: each kept one is replaced by a weighted sum of all old ones, in its place."""

from typing import ClassVar

from shared.kernel.records import MergeMatrices, SurgeryPlan
from surgeon.kinds.plan import PlanPart


class MergeExperts(PlanPart):
    """Replace each kept expert by a weighted sum of all old ones.

    The weights are [layer][new][old], of experts and of their router rows; the layout must be `uniform`.
    """

    kind: ClassVar[str] = "merge_experts"
    source: ClassVar[str] = "Liu et al., EEP, arXiv 2407.00945"
    place: ClassVar[int] = 1

    matrices: MergeMatrices

    def onto(self, plan: SurgeryPlan) -> SurgeryPlan:
        """Return the plan that merges too."""
        return SurgeryPlan(**{**dict(plan), "merge": self.matrices})


KIND = MergeExperts
