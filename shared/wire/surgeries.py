"""Lists of surgeries as they cross the wire: each is a kind with its own parameters, which only the surgeon knows.

`GET /v1/kinds` lists the kinds; `POST /v1/checks` says whether a list can be done to a model, before any work.
"""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, StringConstraints, model_validator

from shared.kernel.records import Record, Sha256, SurgeryPlan, is_absent, is_empty
from shared.wire.names import Name
from shared.wire.surgeon_jobs import PlanOptions, SearchOptions

Kind = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
MOST = 32
"""Surgeries in a list."""


class SurgeryTable(Record):
    """One surgery: its kind, and beside it the parameters of that kind."""

    model_config = Record.model_config | ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    kind: Kind


class Surgeries(Record):
    """What is done to a model file: a plan, or any surgeries in order."""

    plan: SurgeryPlan | None = Field(default=None, exclude_if=is_absent, description="experts kept, merged, active")
    surgeries: tuple[SurgeryTable, ...] = Field(
        default=(), max_length=MOST, exclude_if=is_empty, description="instead of a plan: surgeries in order"
    )

    @model_validator(mode="after")
    def _says_what(self) -> Self:
        if (self.plan is None) == (not self.surgeries):
            raise ValueError("give either a plan or surgeries")
        return self


class ApplyParams(Surgeries):
    """Do it to the artifact `base_sha256`."""

    base_sha256: Sha256


class ApplyResult(Record):
    """The variant as an artifact."""

    sha256: Sha256
    size_bytes: int
    seconds: float
    # Of a list of surgeries; left out for a plan.
    surgeries_sha256: Sha256 | None = Field(default=None, exclude_if=is_absent, description="hash that names the list")
    plan: SurgeryPlan | None = Field(
        default=None, exclude_if=is_absent, description="the one plan that the list is, which nodes can apply too"
    )
    brought_by: dict[Kind, str] = Field(
        default={}, exclude_if=is_empty, description="kind -> package and version, of those that are not the surgeon's"
    )


class VerifyParams(Surgeries):
    """Compare the artifact `sha256` with what that makes of `base_sha256`."""

    base_sha256: Sha256
    sha256: Sha256


class VerifyResult(Record):
    """What was compared; a difference fails the job and names it."""

    n_tensors: int
    n_ranges: int
    n_bytes: int
    plan_hash: Sha256 = Field(description="of the plan, or of the list of surgeries")
    identical: bool = Field(description="it changes nothing and the artifact is the base")


class CheckStep(Record):
    """One step from a base to a variant: a choice that is still to be made, or a surgery."""

    ranking: PlanOptions | None = None
    search: SearchOptions | None = None
    surgery: SurgeryTable | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(one is not None for one in (self.ranking, self.search, self.surgery)) != 1:
            raise ValueError("give one of ranking, search and surgery")
        return self


class CheckParams(Record):
    """May these steps be done, in order, to the configured model in this form? Nothing is read but headers."""

    model: Name
    format: Literal["gguf", "dllama"] = "gguf"
    quantization: str | None = Field(default=None, description="of the base; null: F16, or what the file is")
    steps: tuple[CheckStep, ...] = Field(min_length=1, max_length=MOST)


class ModelAfter(Record):
    """What the model is when they are done."""

    format: str
    architecture: str
    n_layers: int
    n_experts: int
    experts_per_token: int
    quantization: str
