"""The campaign's frozen spec: what is measured, on what, how often. Its hash decides whether a campaign may resume."""

import hashlib
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from orchestrator.domain.campaign.protocol import (
    ACCURACY_FIELDS,
    AccuracyTask,
    MeasurementProtocol,
    TaskName,
    WindowRules,
)
from orchestrator.domain.campaign.serving import MatrixOptions
from orchestrator.domain.campaign.steady_state import SteadyStateSpec
from orchestrator.domain.campaign.steps import FORMER_STEPS
from orchestrator.domain.campaign.timeouts import TimeoutsSpec
from shared.kernel.records import (
    CampaignId,
    ConfigurationId,
    EngineName,
    NodeName,
    Record,
    canonical_bytes,
    dump_under_former_names,
)
from shared.wire.node_jobs.workloads import MarkerParams
from shared.wire.surgeon_jobs import Name


class WorkloadSpec(Record):
    """A fixed workload: each of the prompts, `repeats` times, with exactly `tokens_each` tokens."""

    tokens_each: int = Field(ge=1)
    prompts: int = Field(default=4, ge=1, le=64, description="how many of the fixed prompts are used")
    repeats: int = Field(default=1, ge=1)


class WindowsSpec(Record):
    """Lengths of the windows; the defaults are those of a lab (docs/epi.md), the demo shortens them and says so."""

    former_names: ClassVar = {"settle_s": "gap_before_window_s", "stabilisation": "steady_state"}

    idle_s: float = Field(default=60.0, gt=0)
    steady_state: SteadyStateSpec = Field(default=SteadyStateSpec(), description="before the first window")
    gap_before_window_s: float = Field(default=10.0, ge=0, description="waiting before each window")
    marker: MarkerParams = MarkerParams(on_s=5.0, off_s=5.0, cycles=3)
    prefill: WorkloadSpec = WorkloadSpec(tokens_each=512, repeats=4)
    decode: WorkloadSpec = WorkloadSpec(tokens_each=256, repeats=2)

    def tokens_of(self, label: str) -> int | None:
        """Return how many tokens a prefill or decode window counts; None for other windows."""
        workload = {"prefill": self.prefill, "decode": self.decode}.get(label)
        return None if workload is None else workload.prompts * workload.tokens_each * workload.repeats


class TasksSpec(Record):
    """Which task plays which role of the composite accuracy, and how many questions of each are asked."""

    mmlu_5shot: TaskName
    arc_challenge_25shot: TaskName
    hellaswag_10shot: TaskName
    weights: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)
    questions: int | None = Field(default=None, ge=1, description="per task, stratified and seeded; null asks all")
    seed: int = 1

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> Self:
        if any(weight < 0 for weight in self.weights) or abs(sum(self.weights) - 1) > 1e-9:
            raise ValueError("the three weights must be >= 0 and sum to 1")
        return self

    @property
    def roles(self) -> dict[str, str]:
        """Return role -> task name, in the order of the weights."""
        return {
            "mmlu_5shot": self.mmlu_5shot,
            "arc_challenge_25shot": self.arc_challenge_25shot,
            "hellaswag_10shot": self.hellaswag_10shot,
        }


class EngineSpec(Record):
    """Which engine serves, and how it is started; tags in a configuration's id say otherwise (docs/epi.md)."""

    name: EngineName = Field(default="llama.cpp", description="distributed-llama: accuracy is scored by llama.cpp")
    context_tokens: int = Field(default=8192, ge=64)
    sequences: int = Field(default=32, ge=2, le=256)
    threads: int = Field(default=4, ge=1)


class InterimAnalysesSpec(Record):
    """The campaign is analysed after each repetition from the second on, and ends as soon as an analysis says so.

    The error of all analyses together is that of one (`orchestrator.domain.campaign.sequential`), since they are
    planned here.
    """

    precision: float | None = Field(
        default=None, gt=0, description="stop when every 95 % interval of ln(EPI ratio) has at most this half-width"
    )


class CampaignSpec(Record):
    """One campaign."""

    former_names: ClassVar = {"looks": "interim_analyses"}

    schema_version: Literal[1] = 1
    id: CampaignId
    description: str = ""
    model: Name
    corpus: Name
    method: Name = "frequency"
    quantization: str = "Q4_K_M"
    experts_per_token: int | None = Field(default=None, ge=1, description="K; null keeps the model's own")
    n_nodes: int | None = Field(default=None, ge=1, description="null uses every node")
    node_sets: dict[Name, tuple[NodeName, ...]] = Field(
        default_factory=dict, description="named sets of nodes for servings like `baseline.on-NAME`, the root first"
    )
    references: dict[ConfigurationId, ConfigurationId] = Field(
        default_factory=dict, description="configuration -> what it is compared with instead of the rule's choice"
    )
    configurations: str = Field(default="all", description="ids separated by commas, for example all,baseline.n2")
    repetitions: int = Field(default=3, ge=1, le=100)
    max_attempts: int = Field(default=3, ge=1, le=100)
    max_perplexity_ratio: float = Field(
        default=4.0, gt=1, description="quality gate: a variant whose perplexity rises more is not measured"
    )
    pipeline_ahead: int = Field(default=2, ge=0, le=8, description="variants the surgeon prepares behind a measurement")
    tasks: TasksSpec
    windows: WindowsSpec = WindowsSpec()
    engine: EngineSpec = EngineSpec()
    rules: WindowRules = WindowRules()
    timeouts: TimeoutsSpec = TimeoutsSpec()
    interim_analyses: InterimAnalysesSpec | None = Field(
        default=None, description="may the campaign stop early? null: all repetitions"
    )
    accuracy_note: str = ""
    lag_range_s: tuple[float, float] = Field(default=(-0.25, 3.0), description="where the meter's lag is looked for")

    @model_validator(mode="after")
    def _interim_analyses_need_repetitions(self) -> Self:
        if self.interim_analyses is not None and self.repetitions < 2:
            raise ValueError("interim_analyses needs at least 2 repetitions: one shows no spread")
        return self

    def usual(self) -> MatrixOptions:
        """Return what every configuration has that does not say otherwise."""
        return MatrixOptions(
            method=self.method, quantization=self.quantization, experts_per_token=self.experts_per_token,
            n_nodes=self.n_nodes, engine=self.engine.name, node_sets=self.node_sets, references=self.references,
        )  # fmt: skip

    def protocol(self) -> MeasurementProtocol:
        """Return how every run of this campaign is measured and judged."""
        weights = dict(zip(ACCURACY_FIELDS, self.tasks.weights, strict=True))
        tasks = dict(zip(ACCURACY_FIELDS, self.tasks.roles.values(), strict=True))
        return MeasurementProtocol(
            accuracy={field: AccuracyTask(tasks=(tasks[field],), weight=weights[field]) for field in ACCURACY_FIELDS},
            accuracy_note=self.accuracy_note,
            rules=self.rules,
            lag_range_s=self.lag_range_s,
            gap_before_window_s=self.windows.gap_before_window_s,
        )

    def spec_hash(self) -> str:
        """Return the SHA-256 of the canonical JSON under the keys of schema version 1: renaming changes no hash."""
        values = dump_under_former_names(self)
        former = {name: old for old, name in FORMER_STEPS.items()}
        steps = values["timeouts"]["steps"]
        values["timeouts"]["steps"] = {former.get(step, step): seconds for step, seconds in steps.items()}
        return hashlib.sha256(canonical_bytes(values)).hexdigest()
