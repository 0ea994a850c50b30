"""What a campaign costs in seconds, watts and bytes: of one run, as measured or given, and of hardware, as published.

Not here: taking rates from an earlier campaign (`orchestrator.results.rates`), and adding them up (`planner`).
"""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.domain.campaign.protocol import AccuracyField
from shared.kernel.records import EngineName, Record

Seconds = Annotated[float, Field(ge=0, le=1e12)]
RatesLabel = Literal["measured", "published", "given"]
"""measured: by a campaign of this lab; published: by others, on hardware of the same kind; given: by the user."""


class Prefixes(Record):
    """The few-shot prefixes of one task (MMLU has one a subject), each evaluated once in a pass."""

    count: int = Field(ge=1, le=1 << 50)
    seconds_each: float = Field(ge=0, le=1e12)


class ScorerRates(Record):
    """How quickly a machine that no meter watches answers the questions of one configuration."""

    seconds_per_question: dict[AccuracyField, Seconds] = Field(description="prefix already in the cache")
    prefix_seconds: float = Field(default=0.0, ge=0, le=1e12, description="few-shot prefixes, once a configuration")
    loading_seconds: float = Field(default=0.0, ge=0, le=1e12, description="bringing and loading a variant")
    count: int = Field(default=1, ge=1, le=1 << 50, description="how many such machines")


class Rates(Record):
    """What one run of one configuration costs, in seconds, watts and bytes."""

    seconds_per_question: dict[AccuracyField, Seconds] = Field(description="prefix already in the cache")
    prefix_seconds: float = Field(default=0.0, ge=0, le=1e12, description="few-shot prefixes, once per run")
    prefixes: dict[AccuracyField, Prefixes] = Field(
        default_factory=dict, description="the same by task, where it is known: a sample pays for few of them"
    )
    fixed_seconds: float = Field(
        ge=0, le=1e12, description="idle, marker, prefill, decode, waiting and loading, per run"
    )
    surgery_seconds: float = Field(
        default=0.0, ge=0, le=1e12, description="plan, apply, validate, deploy: once a configuration"
    )
    idle_watts: float = Field(ge=0, le=1e12, description="cluster")
    active_watts: float = Field(ge=0, le=1e12, description="cluster")
    base_bytes: int = Field(ge=0, le=1 << 50, description="quantised base model")
    f16_bytes: int = Field(default=0, ge=0, le=1 << 50, description="model the statistics are taken on, on the surgeon")
    nodes: int = Field(default=4, ge=1, le=1 << 50)
    sample_rate_hz: float = Field(default=10.0, ge=1e-6, le=1e12)
    scorer: ScorerRates | None = Field(default=None, description="null: nobody but the cluster can answer")
    label: RatesLabel = "given"


class EngineRate(Record):
    """How quickly a cluster evaluates and generates with one engine."""

    prefill_tokens_per_s: float = Field(ge=1e-6, le=1e12)
    decode_tokens_per_s: float = Field(ge=1e-6, le=1e12)


class ScorerRate(Record):
    """How quickly a scorer evaluates."""

    prefill_tokens_per_s: float = Field(ge=1e-6, le=1e12)
    loading_seconds: float = Field(default=60.0, ge=0, le=1e12)
    count: int = Field(default=1, ge=1, le=1 << 50)


class TaskSize(Record):
    """How much text a task has, in tokens."""

    questions: int = Field(ge=1, le=1 << 50, description="in the whole task")
    tokens_per_question: float = Field(ge=1e-6, le=1e12, description="question and all options, after the prefix")
    prefixes: int = Field(ge=1, le=1 << 50, description="few-shot prefixes: one, or one a subject")
    tokens_per_prefix: float = Field(ge=0, le=1e12)


class HardwareRates(Record):
    """Rates of a kind of hardware with one model, from which those of any spec follow; every figure has its source."""

    label: Literal["published", "given"] = "given"
    description: str = Field(min_length=1)
    sources: tuple[str, ...] = Field(min_length=1, description="where each figure comes from")
    nodes: int = Field(ge=1, le=1 << 50)
    idle_watts: float = Field(ge=0, le=1e12, description="cluster")
    active_watts: float = Field(ge=0, le=1e12, description="cluster")
    loading_seconds: float = Field(ge=0, le=1e12, description="a model, over the workers")
    base_bytes: int = Field(default=0, ge=0, le=1 << 50, description="quantised base model")
    f16_bytes: int = Field(default=0, ge=0, le=1 << 50, description="model the statistics are taken on")
    sample_rate_hz: float = Field(default=10.0, ge=1e-6, le=1e12)
    engines: dict[EngineName, EngineRate] = Field(min_length=1)
    scorer: ScorerRate | None = None
    tasks: dict[AccuracyField, TaskSize] = Field(min_length=1)
