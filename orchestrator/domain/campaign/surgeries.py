"""What can be done to a model, as data: each kind of surgery with its own parameters, and variants made of them.

A named variant is one or more surgeries in order. The first decides which experts stay (a ranking, a search, a given
plan) or brings a file that somebody else cut; a merge phase may follow. Not here: ids of the matrix (`cells`), and who
does it (the surgeon; `orchestrator.campaign.preparation` asks it).
"""

import re
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from shared.kernel.records import ConfigurationId, LayerGroup, Layout, Record, Sha256, SurgeryPlan
from shared.wire.names import Name, Parameters
from shared.wire.pruning import PruningOptions

Percentage = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]?%$")]
Drop = Annotated[int, Field(ge=1, le=4095)] | Percentage
"""Experts dropped in each layer that is cut: a number, or a share of the model's experts such as "25%"."""
_PARAMETER: Final = re.compile(r"[a-z][a-z0-9_]{0,63}\Z", re.ASCII)
LayerChoice = LayerGroup | tuple[Annotated[int, Field(ge=0, le=4095)], ...]
"""A group of layers, or layer numbers."""


class PruneExperts(PruningOptions):
    """Drop the experts that a ranking calls least important."""

    kind: Literal["prune_experts"] = "prune_experts"
    method: Name | None = Field(default=None, description="a ranking; null: the campaign's method")
    drop: Drop | None = Field(default=None, description='experts dropped in each layer, for example 4 or "25%"')
    keep: tuple[Annotated[int, Field(ge=1, le=4096)], ...] | None = Field(
        default=None, description="instead of drop and layers: how many experts each layer keeps"
    )
    layers: LayerChoice = Field(default="all", description="all, early, middle, late, or layer numbers")
    layout: Layout | None = Field(default=None, description="null: uniform where all layers lose alike, else biased")

    @model_validator(mode="after")
    def _says_how_many(self) -> Self:
        if (self.drop is None) == (self.keep is None):
            raise ValueError("give either drop or keep")
        if self.keep is not None and self.layers != "all":
            raise ValueError("keep names every layer's number itself: leave layers out")
        if bad := [layer for layer in self.protect if layer != "all" and not layer.isdecimal()]:
            raise ValueError(f"protect: {bad[0]!r} is neither a layer number nor all")
        return self

    @property
    def needs_biased(self) -> bool:
        """True where layers keep different numbers, which only the layout `biased` can hold."""
        return self.layers != "all" or self.budget == "bisect" or len(set(self.keep or ())) > 1


class _WithOwnParameters(Record):
    """A table whose other keys are parameters of what it names: the surgeon knows them (`GET /v1/methods`)."""

    model_config = Record.model_config | ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str | int | float | bool]

    @property
    def parameters(self) -> Parameters:
        """Return the keys that are no fields of this table."""
        return dict(self.__pydantic_extra__)

    @model_validator(mode="after")
    def _are_named_so(self) -> Self:
        if bad := [name for name in self.__pydantic_extra__ if not _PARAMETER.match(name)]:
            raise ValueError(f"{bad[0]!r} is no name of a parameter")
        return self


class SearchExperts(_WithOwnParameters):
    """Search for the experts to keep, for example NAEE by the layer's reconstruction loss, EEP by accuracy."""

    kind: Literal["search_experts"] = "search_experts"
    search: Name = Field(description="a search of the surgeon, for example naee or eep")
    drop: Drop = Field(description="experts dropped in every layer")
    questions: tuple[Name, ...] = Field(
        default=(), description="question files of the surgeon, by name: for a search by accuracy"
    )
    reservoir: int = Field(
        default=256, ge=1, le=65_536, description="tokens kept of each layer's inputs, for a search that reads them"
    )


class MergeExperts(_WithOwnParameters):
    """EEP's merge phase: mix the dropped experts into the kept ones by matrices that are evolved."""

    kind: Literal["merge_experts"] = "merge_experts"
    questions: tuple[Name, ...] = Field(min_length=1, description="question files of the surgeon, by name")

    search: ClassVar[str] = "eep_merge"

    @property
    def parameters(self) -> Parameters:
        """Return the search's parameters; a campaign's merge phase is shorter than the paper's unless it says more."""
        return {"iterations": 40, "offspring": 12, **super().parameters}


class GivenPlan(Record):
    """Apply a plan that exists: written out, or by the hash under which this lab has made it before."""

    kind: Literal["plan"] = "plan"
    plan: SurgeryPlan | None = Field(default=None, description="the plan itself")
    sha256: Sha256 | None = Field(default=None, description="the hash of a plan that this lab has made")

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.plan is None) == (self.sha256 is None):
            raise ValueError("give either the plan or its hash")
        return self


class GivenFile(Record):
    """Measure a model file that somebody else cut: a model of the surgeon's settings, by name."""

    kind: Literal["file"] = "file"
    name: Name = Field(description="a model of the surgeon's settings")


Surgery = Annotated[PruneExperts | SearchExperts | MergeExperts | GivenPlan | GivenFile, Field(discriminator="kind")]
_FIRST = ("prune_experts", "search_experts", "plan", "file")


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
        min_length=1, max_length=2, description="in order; experts, plan or file are short for one"
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
        kinds = [one.kind for one in self.surgeries]
        if kinds[0] not in _FIRST:
            raise ValueError(f"surgeries: {kinds[0]} cannot be the first, it goes on from a plan")
        if len(kinds) == 2 and (kinds[1] != "merge_experts" or kinds[0] == "file"):
            raise ValueError(f"surgeries: {kinds[1]} cannot follow {kinds[0]}")
        if kinds[0] == "file" and self.reference is None:
            raise ValueError("reference: say what a file that somebody else cut is compared with, for example baseline")
        return self

    @property
    def layout(self) -> Layout:
        """Return the layout that the surgeries make."""
        first = self.surgeries[0]
        if isinstance(first, PruneExperts):
            return first.layout or ("biased" if first.needs_biased else "uniform")
        if isinstance(first, GivenPlan) and first.plan is not None:
            return first.plan.layout
        return "uniform"

    @property
    def method(self) -> str | None:
        """Return the ranking or search that decides; null: the campaign's own ranking."""
        first = self.surgeries[0]
        if isinstance(first, PruneExperts):
            return first.method
        if isinstance(first, SearchExperts):
            return first.search
        if isinstance(first, GivenPlan):
            return "plan" if first.plan is None else first.plan.method
        return "file"


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
