"""A surgery plan: which experts stay, how they are merged and how many are active, done in one pass over the file.

What a plan holds are surgeries of their own (`PlanPart`): those that follow one another are one plan, which a node can
apply too. How bytes are written is `shared.checkpoints.surgery`, how they are compared `surgeon.verification`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from shared.checkpoints import surgery
from shared.checkpoints.architectures import architecture_named
from shared.checkpoints.base import check_plan
from shared.kernel.errors import ConfigurationError
from shared.kernel.progress import Progress, no_progress
from shared.kernel.records import SurgeryPlan
from surgeon.kinds.base import ModelFacts, Surgery
from surgeon.verification.comparison import Verification
from surgeon.verification.verify import verify

FORMATS = ("gguf", "safetensors", "dllama")


class Plan(Surgery):
    """Apply a whole plan: drop, merge and change K in one pass."""

    kind: ClassVar[str] = "plan"
    source: ClassVar[str] = "docs/formats.md"
    formats: ClassVar[tuple[str, ...]] = FORMATS

    plan: SurgeryPlan

    def check(self, model: ModelFacts) -> ModelFacts:
        """Refuse other shapes, fewer experts than are active, and a layout that the model cannot have."""
        plan, where = self.plan, Path(model.where)
        if model.biased:
            raise ConfigurationError("a biased variant is cut from its base, not from itself", where=model.where)
        check_plan(plan, model, where)
        if plan.layout not in model.layouts:
            raise ConfigurationError(
                f"{model.architecture} ({model.format}) cannot be cut in the layout {plan.layout}: {model.no_biased}",
                where=model.where, hint=f"use {' or '.join(model.layouts)}",
            )  # fmt: skip
        fewest = min(map(len, plan.kept))
        row = architecture_named(model.architecture)
        written_as = row.substitute.name if row is not None and row.substitute is not None else model.architecture
        uniform = plan.layout == "uniform"
        cut = {"n_experts": fewest} if uniform else {"architecture": written_as, "biased": True}
        active = plan.experts_per_token or model.experts_per_token
        return model.model_copy(update={**cut, "selectable": fewest, "experts_per_token": active})

    def size_bytes(self, base: Path) -> int:
        """Return the size of the result; raises as `apply`."""
        return sum(output.size_bytes for output in surgery.recipe(base, self.plan))

    def apply(self, base: Path, target: Path, on_progress: Progress = no_progress) -> None:
        """Copy byte ranges; all that can be refused is refused before the first byte."""
        surgery.apply_plan(base, self.plan, target, on_progress=lambda done, total: on_progress(
            done / max(total, 1), f"{done / 1e9:.2f} of {total / 1e9:.2f} GB"
        ))  # fmt: skip

    def prove(self, base: Path, result: Path) -> Verification:
        """Compare range by range."""
        return verify(base, self.plan, result)


class PlanPart(Surgery):
    """A surgery that a plan can hold.

    Attributes:
        place: parts join one plan in ascending places; one that is not behind the one before it begins another.
    """

    source: ClassVar[str] = Plan.source
    formats: ClassVar[tuple[str, ...]] = FORMATS
    place: ClassVar[int]

    @abstractmethod
    def onto(self, plan: SurgeryPlan) -> SurgeryPlan:
        """Return the plan with this surgery in it.

        Raises:
            ValidationError: no plan can be so.
        """

    def check(self, model: ModelFacts) -> ModelFacts:
        """Check the plan that holds this alone."""
        return self._alone(model).check(model)

    def apply(self, base: Path, target: Path, on_progress: Progress = no_progress) -> None:
        """Apply the plan that holds this alone."""
        self._alone(ModelFacts.of(base)).apply(base, target, on_progress)

    def prove(self, base: Path, result: Path) -> Verification:
        """Prove the plan that holds this alone."""
        return self._alone(ModelFacts.of(base)).prove(base, result)

    def _alone(self, model: ModelFacts) -> Plan:
        return Plan(plan=plan_of((self,), model.n_layers, model.n_experts))


def plan_of(parts: Sequence[PlanPart], n_layers: int, n_experts: int) -> SurgeryPlan:
    """Return the plan of these parts, in ascending places, for a model of this shape.

    Raises:
        ValidationError: no plan can be so: for example another number of experts in a layer of the layout uniform.
    """
    plan = SurgeryPlan(n_experts=n_experts, kept=(tuple(range(n_experts)),) * n_layers)
    for part in parts:
        plan = part.onto(plan)
    return plan


KIND = Plan
