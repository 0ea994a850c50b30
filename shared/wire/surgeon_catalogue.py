"""What a surgeon has and can do, as `GET /v1/catalogue` answers: enough to refuse a campaign before any work.

Beside it what can be asked for by name, with parameters and sources: `GET /v1/methods` and `GET /v1/kinds`.
"""

from typing import Any, Literal

from pydantic import Field

from shared.kernel.records import Layout, Record
from shared.wire.names import Name

Need = Literal["statistics", "weights", "reservoir", "questions", "plan", "start"]
"""What a method must be given, or may be: a reservoir is statistics with block inputs, `start` plans to begin with."""


class CatalogueModel(Record):
    """One model of the surgeon's settings; numbers are 0 where the file does not say."""

    name: Name
    architecture: str = ""
    n_layers: int = Field(default=0, description="layers with experts")
    n_experts: int = Field(default=0, description="in each of them")
    experts_per_token: int = 0
    n_kv_heads: int | None = None
    quantization: str | None = Field(default=None, description="of a GGUF file; null: of a checkpoint, any can be made")
    layouts: tuple[Layout, ...] = Field(default=(), description="in which it can be cut")
    no_biased: str = Field(default="", description="why it cannot be cut in the layout biased")
    layouts_agree: bool = Field(
        default=True, description="one plan is one surgery in both layouts; false: variants of both are never compared"
    )
    no_surgery: str = Field(default="", description="why it cannot be cut")
    problem: str = Field(default="", description="why it cannot be read at all")


class ParameterInfo(Record):
    """One parameter of a method."""

    name: str
    type: str
    default: Any = Field(default=None, description="null: it must be given")
    description: str = ""


class MethodInfo(Record):
    """A way to choose experts, an entry of `GET /v1/methods`.

    A ranking is what the jobs `rank` and `plan` take as `method`, a search what the job `search` takes.
    """

    name: str
    kind: Literal["ranking", "search"]
    source: str = Field(description="paper or definition")
    needs: tuple[Need, ...]
    optional: tuple[Need, ...] = Field(default=(), description="what it may be given besides")
    statistics: tuple[str, ...] = Field(default=(), description="which expert statistics it reads")
    formats: tuple[str, ...] = Field(default=(), description="model formats whose weights it can read; (): reads none")
    parameters: tuple[ParameterInfo, ...] = ()


class Catalogue(Record):
    """Everything that a campaign may name."""

    models: tuple[CatalogueModel, ...] = ()
    corpora: dict[Name, tuple[str, ...]] = Field(default_factory=dict, description="corpus -> its domains")
    questions: tuple[Name, ...] = Field(default=(), description="question files for searches by accuracy")
    methods: tuple[Name, ...] = Field(default=(), description="rankings")
    searches: tuple[Name, ...] = Field(default=(), description="searches for the experts to keep")
    described: tuple[MethodInfo, ...] = Field(default=(), description="rankings and searches that can be loaded")

    def model(self, name: str) -> CatalogueModel | None:
        """Return a model by name."""
        return next((model for model in self.models if model.name == name), None)

    def described_as(self, name: str) -> MethodInfo | None:
        """Return what is known of a ranking or a search."""
        return next((info for info in self.described if info.name == name), None)


class KindInfo(Record):
    """A kind of surgery, an entry of `GET /v1/kinds`: what a list of surgeries may name."""

    name: str
    description: str
    source: str = Field(description="paper or definition")
    formats: tuple[str, ...] = Field(description="model formats that it works on")
    parameters: tuple[ParameterInfo, ...] = ()
