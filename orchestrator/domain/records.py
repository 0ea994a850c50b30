"""Frozen records of the orchestrator's mathematics: what a run hands in and the protocol it was measured by.

Not here: what is calculated from them (`evaluate`, `statistics`) and how it lies in files (`orchestrator.reports`).
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.domain.stabilisation import Stabilisation
from shared.meter_api import TraceEvent
from shared.node_jobs.activity import AgentActivity
from shared.node_jobs.artifacts import ObtainResult
from shared.node_jobs.host import NodeFacts
from shared.records import (
    Configuration,
    ConfigurationId,
    EngineName,
    Instrument,
    NodeName,
    Record,
    Sha256,
    SurgeryPlan,
    Window,
    WindowLabel,
)

AccuracyField = Literal["mmlu_5shot", "arc_challenge_25shot", "hellaswag_10shot"]
ACCURACY_FIELDS: tuple[AccuracyField, ...] = ("mmlu_5shot", "arc_challenge_25shot", "hellaswag_10shot")
TokenBasis = Literal["decode_generated", "prefill_prompt", "benchmark_generated"]


class MatrixOptions(Record):
    """The usual serving of a matrix: what every configuration has that does not say otherwise in its id."""

    method: str = "frequency"
    quantization: str = "Q4_K_M"
    experts_per_token: int | None = Field(default=None, ge=1)
    n_nodes: int | None = Field(default=None, ge=1)
    engine: EngineName = "llama.cpp"
    node_sets: dict[str, tuple[NodeName, ...]] = Field(default_factory=dict, description="for servings `on-NAME`")
    references: dict[ConfigurationId, ConfigurationId] = Field(
        default_factory=dict, description="configuration -> what it is compared with instead of the rule's choice"
    )


class MarkerLoad(Record):
    """A load that was stepped on and off on one node to find the meter's lag."""

    node: NodeName
    start_utc_ns: int
    end_utc_ns: int
    on: tuple[tuple[int, int], ...] = Field(min_length=1, description="[(start, end)] in UTC ns, ascending")

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        edges = [self.start_utc_ns, *(edge for pair in self.on for edge in pair), self.end_utc_ns]
        if edges != sorted(edges):
            raise ValueError("the marker's edges are not in order inside its span")
        return self


class AccuracyTask(Record):
    """Which benchmark tasks fill one accuracy field, and how much it weighs in the composite."""

    tasks: tuple[str, ...] = Field(min_length=1, description="task names; a trailing * matches any ending")
    weight: float = Field(default=1 / 3, ge=0)

    def holds(self, task: str) -> bool:
        """Tell whether `task` belongs to this field."""
        return any(
            task.startswith(name[:-1]) if name.endswith("*") else task == name for name in self.tasks
        )


def default_accuracy() -> dict[AccuracyField, AccuracyTask]:
    """Return lm-eval's own tasks with equal weights."""
    return {
        "mmlu_5shot": AccuracyTask(tasks=("mmlu", "mmlu_*")),
        "arc_challenge_25shot": AccuracyTask(tasks=("arc_challenge",)),
        "hellaswag_10shot": AccuracyTask(tasks=("hellaswag",)),
    }


class WindowRules(Record):
    """When a window is believed (MLPerf Power / SPEC PTDaemon, docs/epi.md); the demo shortens the durations."""

    min_duration_s: float = Field(default=60.0, ge=0, description="shorter decode, prefill, score: FAIL")
    recommended_duration_s: float = Field(default=600.0, ge=0, description="shorter: FLAG")
    min_idle_s: float = Field(default=10.0, ge=0, description="shorter idle: FAIL")
    max_sample_interval_s: float = Field(default=1.0, gt=0, description="longer median interval: FAIL")
    gap_limit_s: float = Field(default=2.0, gt=0, description="longer gap, or edge without samples around it: FAIL")
    min_samples: int = Field(default=10, ge=2)
    max_instrument_uncertainty: float = Field(default=0.01, gt=0, description="relative, 1 sigma; more: FLAG")
    ambient_c: tuple[float, float] = (20.0, 24.0)
    max_temperature_drift_c: float = Field(default=5.0, gt=0, description="of a node over the run; more: FLAG")
    required_governor: str = "performance"
    settle_s: float | None = Field(
        default=None, ge=0, description="less time since the window before: FLAG; null asks 10 s, 0 s where shortened"
    )
    max_register_disagreement: float = Field(default=0.02, gt=0, description="register against integral; more: FLAG")
    max_agent_cpu_share: float = Field(default=0.002, gt=0, description="of one core, by a node's agent; more: FLAG")
    max_calibration_age_days: float = Field(default=365.0, gt=0, description="older or unknown: FLAG")
    shortened: bool = Field(default=False, description="durations are below the norm on purpose: the report says so")


DEMO_RULES = WindowRules(
    min_duration_s=0.5,
    recommended_duration_s=1.0,
    min_idle_s=0.5,
    gap_limit_s=0.5,
    min_samples=5,
    shortened=True,
)
"""Rules of the demo: seconds instead of minutes, at 10 Hz."""


class MeasurementProtocol(Record):
    """How the run was measured and is judged; frozen with the campaign."""

    token_basis: TokenBasis = "decode_generated"
    accuracy: dict[AccuracyField, AccuracyTask] = Field(default_factory=default_accuracy, min_length=1)
    accuracy_note: str = Field(default="", description="for example: tasks of the same style, not the real suites")
    rules: WindowRules = WindowRules()
    lag_range_s: tuple[Annotated[float, Field(ge=-60, le=60)], Annotated[float, Field(ge=-60, le=60)]] = Field(
        default=(-0.25, 1.5), description="where the lag is looked for"
    )
    settle_s: float = Field(default=0.0, ge=0, description="stillness before each window")

    @model_validator(mode="after")
    def _weights_add_up(self) -> Self:
        if self.accuracy and sum(task.weight for task in self.accuracy.values()) <= 0:
            raise ValueError("the accuracy weights are all zero")
        if self.lag_range_s[0] >= self.lag_range_s[1]:
            raise ValueError("the lag range is empty")
        return self


class Environment(Record):
    """The seed's environment block; unknown is null."""

    ambient_temp_c: float | None = Field(default=None, description="by the meter's sensor; null: it has none")
    ambient_humidity_percent: float | None = Field(default=None, description="relative; null: the meter has no sensor")
    frequency_governor: str | None = None
    background_load: float | None = Field(default=None, description="mean 1-minute load of the nodes before the run")


class ServedBy(Record):
    """What a window's tokens came from."""

    engine: EngineName
    engine_build: str
    model_sha256: Sha256
    nodes: tuple[NodeName, ...] = Field(description="the nodes it ran on, the root first")


class Provenance(Record):
    """From what the result comes; unknown is null."""

    plan_sha256: Sha256 | None = None
    model_sha256: Sha256 | None = Field(default=None, description="the file the engine loaded")
    base_sha256: Sha256 | None = None
    statistics_sha256: Sha256 | None = None
    spec_sha256: Sha256 | None = Field(default=None, description="the frozen campaign spec")
    output_sha256: Sha256 | None = Field(default=None, description="all token ids the decode workload generated")
    engine: str | None = Field(default=None, description="of the headline window")
    engine_build: str | None = None
    windows: dict[WindowLabel, ServedBy] = Field(
        default_factory=dict, description="which engine each figure comes from; accuracy is that of `score`"
    )
    lm_eval_version: str | None = None
    epi_factory_version: str | None = None
    distributed_llama_version: str | None = None
    task_names: tuple[str, ...] = ()


class RunInput(Record):
    """Everything known of one run but its samples and answers: what `run_NNN.json` holds and `evaluate_run` reads.

    Windows and markers are in UTC ns of the orchestrator's clock, as recorded: not yet shifted by the lag.
    """

    schema_version: Literal[1] = 1
    run_id: str = Field(min_length=1, description="unique within the campaign, for example drop3_late/rep-2")
    campaign_id: str = Field(min_length=1)
    configuration: Configuration
    repetition: int = Field(ge=1)
    attempt: int = Field(default=1, ge=1)
    timestamp_utc_ns: int = Field(description="start of the run")
    model: str = Field(description="name of the base model")
    model_experts_per_token: int | None = Field(default=None, ge=1, description="the model's own K")
    hardware: str = Field(description="one line, for example: 4x Raspberry Pi 5 8GB, gigabit Ethernet")
    instrument: Instrument
    environment: Environment = Environment()
    facts_before: tuple[NodeFacts, ...] = ()
    facts_after: tuple[NodeFacts, ...] = ()
    silence: dict[NodeName, AgentActivity] = Field(
        default_factory=dict, description="what each node's agent did from before the first window to after the last"
    )
    nodes: tuple[NodeName, ...] | None = Field(
        default=None, description="the nodes in use, whose energy counts; null counts every channel of the trace"
    )
    window_silence: dict[WindowLabel, AgentActivity] = Field(
        default_factory=dict, description="what the root's agent did from the start to the end of each workload"
    )
    deliveries: dict[NodeName, ObtainResult] = Field(
        default_factory=dict, description="how this run's model reached the nodes that need it, with the bytes sent"
    )
    stabilisation: Stabilisation | None = None
    windows: tuple[Window, ...]
    markers: tuple[MarkerLoad, ...] = ()
    register_j: dict[NodeName, float | None] | None = Field(
        default=None, description="the meter's own energy register between first and last sample of the trace"
    )
    meter_events: tuple[TraceEvent, ...] = ()
    calibrated_utc_ns: int | None = Field(default=None, description="when the instrument was last calibrated")
    plan: SurgeryPlan | None = None
    provenance: Provenance = Provenance()
    protocol: MeasurementProtocol = MeasurementProtocol()

    @property
    def configuration_id(self) -> ConfigurationId:
        """Return the id of the configuration."""
        return self.configuration.id
