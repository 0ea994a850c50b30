"""What can be done to a model, as data: each kind of surgery with its own parameters.

Some kinds decide which experts stay (a ranking, a search, a merge phase, a given plan); any other is a kind that the
surgeon has, with its own parameters, which are checked there. One brings a file that somebody else cut. Not here:
variants made of them (`variants`), ids of the matrix (`cells`), and who does it (the surgeon).
"""

import re
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, StringConstraints, Tag, model_validator

from shared.kernel.records import LayerGroup, Layout, Record, Sha256, SurgeryPlan
from shared.wire.names import Name, Parameters
from shared.wire.pruning import PruningOptions
from shared.wire.surgeries import SurgeryTable

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
    drop: Drop | None = Field(
        default=None, description="experts dropped in every layer; null: the search goes on from the plan before it"
    )
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
    reservoir: ClassVar[int] = 256

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


class AppliedSurgery(SurgeryTable):
    """Any kind of surgery that the surgeon has (`epi surgery kinds`), with its parameters."""

    @property
    def makes_biased(self) -> bool:
        """Return whether its parameters name the layout `biased`."""
        return self.__pydantic_extra__.get("layout") == "biased"


_OWN: Final = ("prune_experts", "search_experts", "merge_experts", "plan", "file")
_DECIDED: Final = {"prune_experts": "kept", "merge_experts": "matrices"}
"""Kinds that the surgeon has under the same name -> the parameter that shows that nothing is left to decide."""


def _which(value: Any) -> str | None:
    """Return the tag of a surgery: one of ours, or any of the surgeon's."""
    if isinstance(value, AppliedSurgery):
        return "applied"
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    if kind not in _OWN or (isinstance(value, dict) and _DECIDED.get(kind, "") in value):
        return "applied"
    return str(kind)


Surgery = Annotated[
    Annotated[PruneExperts, Tag("prune_experts")]
    | Annotated[SearchExperts, Tag("search_experts")]
    | Annotated[MergeExperts, Tag("merge_experts")]
    | Annotated[GivenPlan, Tag("plan")]
    | Annotated[GivenFile, Tag("file")]
    | Annotated[AppliedSurgery, Tag("applied")],
    Discriminator(_which),
]
Decision = PruneExperts | SearchExperts | MergeExperts | GivenPlan


def goes_on(surgery: Surgery) -> bool:
    """Tell whether a surgery goes on from the plan of the one before it."""
    return isinstance(surgery, MergeExperts) or (isinstance(surgery, SearchExperts) and surgery.drop is None)


def layout_made_by(surgery: PruneExperts) -> Layout:
    """Return the layout of a pruning: as it says, else `biased` where layers keep different numbers."""
    return surgery.layout or ("biased" if surgery.needs_biased else "uniform")


def layout_of(surgery: Surgery) -> Layout:
    """Return the layout that a surgery makes, as far as it says so."""
    if isinstance(surgery, PruneExperts):
        return layout_made_by(surgery)
    if isinstance(surgery, GivenPlan):
        return "uniform" if surgery.plan is None else surgery.plan.layout
    return "biased" if isinstance(surgery, AppliedSurgery) and surgery.makes_biased else "uniform"
