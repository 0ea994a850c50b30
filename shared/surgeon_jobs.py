"""What the surgeon can be asked to do: parameters and results of each job kind.

| kind | does |
|---|---|
| `prepare` | convert a configured checkpoint to F16 GGUF and quantise it: the campaign's base model |
| `observe` | collect expert statistics of an F16 model over a configured calibration corpus |
| `plan` | rank experts and choose the ones each layer keeps |
| `apply` | apply a plan to a base model; the result is an artifact |
| `validate` | sanity prompts and perplexity: is the variant still a language model? |

Models and corpora are named in the surgeon's settings; no path ever comes from the network.
"""

from typing import Annotated

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


class ObserveResult(Record):
    """The statistics file."""

    statistics_sha256: Sha256
    n_tokens: int


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
