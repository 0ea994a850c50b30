"""Named variants of a campaign: surgeries in order on a base, and the short forms in which specs write them."""

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from orchestrator.domain.campaign.surgeries import (
    Decision,
    GivenFile,
    GivenPlan,
    MergeExperts,
    PruneExperts,
    SearchExperts,
    Surgery,
    goes_on,
    layout_of,
)
from shared.kernel.records import ConfigurationId, Layout, Record


def _with_short_forms(schema: dict[str, Any]) -> None:
    """Let editors know `experts`, `plan` and `file`, which are written out as surgeries."""
    schema["properties"] |= {
        "experts": {"type": "object", "description": "one prune_experts (drop, method, layers, ...) or, with search,"
                    " one search_experts; merge = true or a table adds merge_experts"},
        "plan": {"type": ["string", "object"], "description": "a plan file, the hash of a known plan, or the plan"},
        "file": {"type": "string", "description": "a model of the surgeon's settings that somebody else cut"},
    }  # fmt: skip
    schema.pop("required", None)


class VariantSpec(Record):
    """A named variant: `surgeries` in order, or in short one of `experts`, `plan`, `file`."""

    model_config = Record.model_config | ConfigDict(json_schema_extra=_with_short_forms)

    description: str = Field(default="", description="for people")
    surgeries: tuple[Surgery, ...] = Field(
        min_length=1, max_length=16, description="in order; experts, plan or file are short for one"
    )
    base: Literal["quantized", "f16"] = Field(
        default="quantized", description="what they are done to; f16: they bring it into its quantisation themselves"
    )
    reference: ConfigurationId | None = Field(
        default=None, description="what it is compared with; null: the unpruned model of its layout and serving"
    )

    @model_validator(mode="before")
    @classmethod
    def _write_out(cls, data: Any) -> Any:
        """Write `experts`, `plan` and `file` out as surgeries."""
        if not isinstance(data, dict):
            return data
        short = [key for key in ("experts", "plan", "file") if key in data]
        if not short:
            return data
        if len(short) > 1 or "surgeries" in data:
            raise ValueError("give one of surgeries, experts, plan and file")
        rest = {key: value for key, value in data.items() if key not in short}
        return {**rest, "surgeries": _surgeries_of(short[0], data[short[0]])}

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        for number, one in enumerate(self.surgeries):
            before = self.surgeries[number - 1] if number else None
            if isinstance(one, GivenFile) and len(self.surgeries) > 1:
                raise ValueError("surgeries: a file that somebody else cut is measured as it is, nothing goes with it")
            if goes_on(one) and before is None:
                raise ValueError(f"surgeries: {one.kind} cannot be the first, it goes on from a plan")
            if goes_on(one) and not isinstance(before, Decision):
                raise ValueError(f"surgeries: {one.kind} cannot follow {before and before.kind}")
        if isinstance(self.surgeries[0], GivenFile) and self.reference is None:
            raise ValueError("reference: say what a file that somebody else cut is compared with, for example baseline")
        return self

    @property
    def is_one_plan(self) -> bool:
        """Return whether one decision, and what goes on from it, is all: a plan that nodes can apply too."""
        first, *rest = self.surgeries
        return isinstance(first, Decision) and all(map(goes_on, rest)) and self.base == "quantized"

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Return the surgeries that decide which experts stay."""
        return tuple(one for one in self.surgeries if isinstance(one, Decision))

    @property
    def layout(self) -> Layout:
        """Return the layout that the surgeries make."""
        return "biased" if any(layout_of(one) == "biased" for one in self.surgeries) else "uniform"

    @property
    def method(self) -> str | None:
        """Return the ranking or search that decides; null: the campaign's own ranking."""
        first = self.surgeries[0] if not self.decisions else self.decisions[0]
        if isinstance(first, PruneExperts):
            return first.method
        if isinstance(first, SearchExperts | MergeExperts):
            return first.search
        if isinstance(first, GivenPlan):
            return "plan" if first.plan is None else first.plan.method
        return "file" if isinstance(first, GivenFile) else "+".join(one.kind for one in self.surgeries)


def _surgeries_of(key: str, value: Any) -> list[dict[str, Any]]:
    if key == "file":
        return [{"kind": "file", "name": value}]
    if key == "plan":
        return [{"kind": "plan", "sha256": value} if isinstance(value, str) else {"kind": "plan", "plan": value}]
    if not isinstance(value, dict):
        raise ValueError("experts: a table is expected")
    experts = dict(value)
    merge = experts.pop("merge", False)
    made = [{"kind": "search_experts" if "search" in experts else "prune_experts", **experts}]
    if merge:
        own = merge if isinstance(merge, dict) else {}
        made.append({"kind": "merge_experts", "questions": experts.get("questions", ()), **own})
    return made
