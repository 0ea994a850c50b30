"""Dropping experts: removed from the file (`uniform`), or left in it and made unselectable (`biased`)."""

from typing import ClassVar

from pydantic import Field

from shared.kernel.records import Layout, Sha256, SurgeryPlan
from surgeon.kinds.plan import PlanPart


class PruneExperts(PlanPart):
    """Drop all experts but those given for each layer.

    `method`, its parameters and the hashes say where that decision came from.
    """

    kind: ClassVar[str] = "prune_experts"
    place: ClassVar[int] = 0

    n_experts: int = Field(ge=1, le=4096, description="experts in each layer of the base")
    kept: tuple[tuple[int, ...], ...] = Field(description="[layer][rank] ascending ids of the kept experts")
    layout: Layout = "uniform"
    method: str = "none"
    parameters: dict[str, str | int | float | bool] = Field(default_factory=dict)
    base_sha256: Sha256 | None = Field(default=None, description="of the model the statistics were taken on")
    statistics_sha256: Sha256 | None = None
    router_sha256: Sha256 | None = Field(default=None, description="of the base's routers: what expert ids mean")

    def onto(self, plan: SurgeryPlan) -> SurgeryPlan:
        """Return the plan that keeps these experts."""
        return SurgeryPlan(**{**dict(plan), **dict(self)})

    @classmethod
    def of(cls, plan: SurgeryPlan) -> "PruneExperts":
        """Return what of a plan is dropping, with its provenance."""
        return cls(**{name: getattr(plan, name) for name in cls.model_fields})


KIND = PruneExperts
