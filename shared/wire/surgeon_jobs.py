"""What the surgeon can be asked to do: parameters and results of each job kind.

| kind | does |
|---|---|
| `prepare` | convert a configured checkpoint to F16 GGUF and quantise it: the campaign's base model |
| `convert` | convert a configured checkpoint to GGUF, or to distributed-llama's model or tokenizer |
| `quantize` | quantise an F32, F16 or BF16 model, with an importance matrix where asked |
| `observe` | collect expert statistics of an F16 model over a configured calibration corpus, or over a shard of it |
| `merge` | add the statistics of shards: exactly those of one pass |
| `rank` | say how much each expert matters, by one method |
| `search` | search for the experts to keep, for example NAEE by reconstruction loss, EEP by accuracy on questions |
| `skipping` | say what NAEE's dynamic skipping would cost in accuracy and skip in expert computations |
| `plan` | rank experts and choose the ones each layer keeps |
| `apply` | apply a plan, or surgeries in order, to a base model; the result is an artifact (`surgeries`) |
| `verify` | prove that an artifact is what base and plan, or surgeries, make of it (`surgeries`) |
| `validate` | sanity prompts and perplexity: is the variant still a language model? |

Models and corpora are named in the surgeon's settings; no path ever comes from the network.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from shared.kernel.records import LayerGroup, Layout, Record, Sha256, SurgeryPlan, is_empty
from shared.wire.names import Name, Parameters
from shared.wire.pruning import PruningOptions


class PrepareParams(Record):
    """Make the base model from the configured checkpoint `model`: a folder of safetensors, or a GGUF file."""

    model: Name
    quantization: str = "Q4_K_M"


class PrepareResult(Record):
    """The two files and what the model is; a file that was quantised already is both."""

    f16_sha256: Sha256
    base_sha256: Sha256
    base_size_bytes: int
    architecture: str
    n_layers: int
    n_experts: int
    experts_per_token: int
    n_kv_heads: int | None = Field(default=None, description="bounds the nodes of distributed-llama")
    no_surgery: str = Field(default="", description="why only the model as it is can be measured: dense, for example")


class FileResult(Record):
    """An artifact that was made."""

    sha256: Sha256
    size_bytes: int


class ConvertParams(Record):
    """Convert the configured checkpoint `model`."""

    model: Name
    format: Literal["gguf", "dllama", "dllama_tokenizer"] = "gguf"
    outtype: Literal["F32", "F16", "BF16", "Q40", "Q80"] | None = Field(
        default=None, description="null: F16 for GGUF, Q40 for distributed-llama"
    )


class QuantizeParams(Record):
    """Quantise the artifact `model_sha256`."""

    model_sha256: Sha256
    quantization: str = "Q4_K_M"
    statistics_sha256: Sha256 | None = Field(default=None, description="observed with columns: importance matrix")
    plan: SurgeryPlan | None = Field(default=None, description="the plan the model was cut with: cuts the matrix too")


class ObserveParams(Record):
    """Collect statistics over the configured corpus; shard (i, n) takes every n-th window from i on."""

    model_sha256: Sha256
    corpus: Name
    shard: tuple[int, int] = (0, 1)
    max_tokens: int | None = Field(default=None, ge=1)
    columns: bool = Field(default=False, description="also sums of squares per input column: importance matrix")
    reservoir: int = Field(default=0, ge=0, le=65536, description="block inputs to keep per layer: NAEE")


class ObserveResult(Record):
    """The statistics file."""

    statistics_sha256: Sha256
    n_tokens: int


class MergeParams(Record):
    """Add the statistics of disjoint shards of one corpus."""

    statistics_sha256s: tuple[Sha256, ...] = Field(min_length=1)


class RankParams(Record):
    """Ask one method; `domain_weights` blends the statistics' domains per token."""

    model_sha256: Sha256
    statistics_sha256: Sha256 | None = None
    method: Name = "reap"
    domain_weights: dict[str, float] | None = None
    seed: int = Field(default=0, description="of methods that draw lots")
    # Left out where it is not used, so that a job that an earlier version asked for is the same job.
    parameters: Parameters = Field(default={}, exclude_if=is_empty, description="the method's own")


class RankResult(Record):
    """`saliency[layer][expert]`; within a layer the lowest are dropped first."""

    method: str
    saliency: tuple[tuple[float, ...], ...]


_FORMER_SEARCH_PARAMETERS: Final[Mapping[str, Mapping[str, float | None]]] = {
    "naee": {"max_subsets": 50_000},
    "eep": {"train_share": 0.5, "iterations": 40, "offspring": 12, "seed": 0},
    "eep_merge": {"train_share": 0.5, "iterations": None, "offspring": None, "seed": 0},
}
"""Which of the fields that stood beside `method` before searches had parameters of their own counted for which search,
and with which value it was written though nobody had said it; null: it is the search's default no more."""
_FORMER_SEARCH_FIELDS: Final = ("train_share", "max_subsets", "iterations", "offspring", "seed")


class SearchOptions(Record):
    """Which search, with what; `GET /v1/methods` lists them with their needs and parameters."""

    method: Name
    depth: int | None = Field(default=None, ge=1, description="experts each layer drops; null: it goes on from a plan")
    questions: tuple[Name, ...] = Field(default=(), description="names in the surgeon's settings")
    parameters: Parameters = Field(default={}, exclude_if=is_empty, description="the search's own")

    @model_validator(mode="before")
    @classmethod
    def _read_former_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.keys().isdisjoint(_FORMER_SEARCH_FIELDS):
            return data
        counted = _FORMER_SEARCH_PARAMETERS.get(data.get("method", ""), {})
        own = {name: data[name] for name, usual in counted.items() if data.get(name, usual) != usual}
        rest = {name: value for name, value in data.items() if name not in _FORMER_SEARCH_FIELDS}
        return {**rest, "parameters": {**own, **data.get("parameters", {})}}


class SearchParams(SearchOptions):
    """Search for the experts each layer keeps; what the search does not need is refused."""

    model_sha256: Sha256
    plan: SurgeryPlan | None = Field(default=None, description="of a search that goes on from one")
    start: tuple[SurgeryPlan, ...] = Field(default=(), description="plans to begin with beside the search's own")
    statistics_sha256: Sha256 | None = None


_FORMER_REPORT: Final = (
    "losses", "exhaustive", "train_accuracy", "validation_accuracy", "validation_accuracy_of_base",
)  # fmt: skip


class _MadePlan(Record):
    plan: SurgeryPlan
    plan_hash: Sha256 = Field(description="of the plan's canonical JSON")

    @model_validator(mode="after")
    def _plan_is_whole(self) -> Self:
        """A surgeon of a higher minor may know more of a plan than can be read here: it would be another plan."""
        if self.plan.plan_hash() != self.plan_hash:
            raise ValueError("the plan is not the one that plan_hash names: a newer surgeon says more of it?")
        return self


class SearchResult(_MadePlan):
    """The plan and what is known of its worth."""

    report: dict[str, Any] = Field(
        default_factory=dict, description="the search's own words for it: losses by layer, accuracies"
    )

    @model_validator(mode="before")
    @classmethod
    def _read_former_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.keys().isdisjoint(_FORMER_REPORT):
            return data
        own = {name: data[name] for name in _FORMER_REPORT if data.get(name) not in (None, [], ())}
        rest = {name: value for name, value in data.items() if name not in _FORMER_REPORT}
        return {**rest, "report": {**own, **data.get("report", {})}}


class SkippingParams(Record):
    """Evaluate NAEE's dynamic skipping with beta per layer from the statistics."""

    model_sha256: Sha256
    statistics_sha256: Sha256
    questions: tuple[Name, ...] = Field(min_length=1, description="names in the surgeon's settings")


class SkippingScore(Record):
    """One file of questions, without and with skipping."""

    questions: str
    accuracy: float
    accuracy_skipping: float
    share_skipped: float = Field(description="of the expert computations")


class SkippingResult(Record):
    """What skipping would do; stock engines compute skipped experts all the same."""

    betas: tuple[float, ...]
    tasks: tuple[SkippingScore, ...]
    saves_energy_on_stock_engines: Literal[False] = False


class PlanOptions(PruningOptions):
    """Which experts to drop: `depth` in each layer of `group`, or all but `keep[layer]`, by `method`."""

    method: Name = "frequency"
    depth: int | None = Field(default=None, ge=0)
    keep: tuple[int, ...] | None = Field(default=None, description="instead of depth and group: experts by layer")
    group: LayerGroup | tuple[int, ...] = Field(default="all", description="or layer numbers")
    layout: Layout = "uniform"
    experts_per_token: int | None = None

    @model_validator(mode="after")
    def _says_how_many(self) -> Self:
        if (self.depth is None) == (self.keep is None):
            raise ValueError("give either a depth or the experts to keep in each layer")
        return self


class PlanParams(PlanOptions):
    """Choose for the artifact `model_sha256`."""

    model_sha256: Sha256
    statistics_sha256: Sha256 | None = None


class PlanResult(_MadePlan):
    """The plan and its canonical hash."""


class ValidateParams(Record):
    """Ask a variant the sanity prompts; with `baseline_sha256`, compare perplexity with it."""

    sha256: Sha256
    baseline_sha256: Sha256 | None = None
    max_perplexity_ratio: float = Field(default=4.0, gt=0)


class PromptCompletion(Record):
    """One sanity prompt and what the variant said."""

    prompt: str
    answer: str
    ok: bool
    reason: str = ""


class ValidateResult(Record):
    """`ok` False stops the variant before deployment; `reason` says why."""

    ok: bool
    reason: str = ""
    perplexity: float | None = None
    baseline_perplexity: float | None = None
    answers: tuple[PromptCompletion, ...] = ()
