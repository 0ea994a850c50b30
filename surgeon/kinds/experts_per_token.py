"""Another K: how many experts are active per token, written into the model's metadata."""

from typing import ClassVar

from pydantic import Field

from shared.kernel.records import SurgeryPlan
from surgeon.kinds.plan import PlanPart


class ExpertsPerToken(PlanPart):
    """Change how many experts are active per token."""

    kind: ClassVar[str] = "experts_per_token"
    place: ClassVar[int] = 2

    k: int = Field(ge=1)

    def onto(self, plan: SurgeryPlan) -> SurgeryPlan:
        """Return the plan with this K."""
        return SurgeryPlan(**{**dict(plan), "experts_per_token": self.k})


KIND = ExpertsPerToken
