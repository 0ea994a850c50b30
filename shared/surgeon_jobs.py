"""What the surgeon can be asked to do: parameters and results of each job kind.

| kind | does |
|---|---|
| `prepare` | convert a configured checkpoint to F16 GGUF and quantise it: the campaign's base model |
| `observe` | collect expert statistics of an F16 model over a configured calibration corpus |
| `rank` | say how much each expert matters, by one method |
| `search` | search for the experts to keep: NAEE by reconstruction loss, EEP by accuracy on configured questions |
| `plan` | rank experts and choose the ones each layer keeps |
| `apply` | apply a plan to a base model; the result is an artifact |
| `verify` | prove, range by range, that an artifact is what base and plan make of it |
| `validate` | sanity prompts and perplexity: is the variant still a language model? |

Models and corpora are named in the surgeon's settings; no path ever comes from the network.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from shared.records import LayerGroup, Layout, Record, Sha256, SurgeryPlan

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class PrepareParams(Record):
    """Make the base model from the configured checkpoint `model`."""

    model: Name
    quantization: str = "Q4_K_M"


class PrepareResult(Record):
    """The two files and what the model is."""

    f16_sha256: Sha256
    base_sha256: Sha256
    base_size_bytes: int
    architecture: str
    n_layers: int
    n_experts: int
    experts_per_token: int


class ObserveParams(Record):
    """Collect statistics over the configured corpus."""

    model_sha256: Sha256
    corpus: Name
    columns: bool = Field(default=False, description="also sums of squares per input column: importance matrix")
    reservoir: int = Field(default=0, ge=0, le=65536, description="block inputs to keep per layer: NAEE")


class ObserveResult(Record):
    """The statistics file."""

    statistics_sha256: Sha256
    n_tokens: int


class RankParams(Record):
    """Ask one method; `domain_weights` blends the statistics' domains per token."""

    model_sha256: Sha256
    statistics_sha256: Sha256 | None = None
    method: Name = "reap"
    domain_weights: dict[str, float] | None = None
    seed: int = 0


class RankResult(Record):
    """`saliency[layer][expert]`; within a layer the lowest are dropped first."""

    method: str
    saliency: tuple[tuple[float, ...], ...]


class SearchParams(Record):
    """Search for the experts each layer keeps when `depth` are dropped."""

    model_sha256: Sha256
    method: Literal["naee", "eep"]
    depth: int = Field(ge=1)
    statistics_sha256: Sha256 | None = Field(default=None, description="NAEE: observed with a reservoir")
    max_subsets: int = Field(default=50_000, ge=1, description="NAEE: above it greedy with swaps")
    questions: tuple[Name, ...] = Field(default=(), description="EEP: names in the surgeon's settings")
    iterations: int = Field(default=40, ge=0, le=10_000)
    offspring: int = Field(default=12, ge=1, le=1000)
    seed: int = 0


class SearchResult(Record):
    """The plan and what is known of its worth: losses by layer (NAEE), accuracies (EEP)."""

    plan: SurgeryPlan
    plan_hash: Sha256
    losses: tuple[float, ...] = ()
    exhaustive: bool | None = None
    train_accuracy: float | None = None
    validation_accuracy: float | None = None
    validation_accuracy_of_base: float | None = None


class PlanParams(Record):
    """Drop `depth` experts in each layer of `group` by `method`."""

    model_sha256: Sha256
    statistics_sha256: Sha256 | None = None
    method: Name = "frequency"
    depth: int = Field(ge=0)
    group: LayerGroup = "all"
    layout: Layout = "uniform"
    experts_per_token: int | None = None


class PlanResult(Record):
    """The plan and its canonical hash."""

    plan: SurgeryPlan
    plan_hash: Sha256


class ApplyParams(Record):
    """Apply `plan` to the artifact `base_sha256`."""

    base_sha256: Sha256
    plan: SurgeryPlan


class ApplyResult(Record):
    """The variant as an artifact."""

    sha256: Sha256
    size_bytes: int
    seconds: float


class VerifyParams(Record):
    """Compare the artifact `sha256` with what `plan` makes of `base_sha256`."""

    base_sha256: Sha256
    plan: SurgeryPlan
    sha256: Sha256


class VerifyResult(Record):
    """What was compared; a difference fails the job and names it."""

    n_tensors: int
    n_ranges: int
    n_bytes: int
    plan_hash: Sha256
    identical: bool = Field(description="the plan changes nothing and the artifact is the base")


class ValidateParams(Record):
    """Ask a variant the sanity prompts; with `baseline_sha256`, compare perplexity with it."""

    sha256: Sha256
    baseline_sha256: Sha256 | None = None
    max_perplexity_ratio: float = Field(default=4.0, gt=0)


class PromptAnswer(Record):
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
    answers: tuple[PromptAnswer, ...] = ()
