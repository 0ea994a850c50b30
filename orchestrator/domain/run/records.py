"""What a run hands in: windows, markers, facts, provenance.

Not here: what is calculated from them (`evaluate`) and how it lies in files (`orchestrator.results`).
"""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from orchestrator.domain.campaign.fit import NodeFit
from orchestrator.domain.campaign.protocol import MeasurementProtocol
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.steady_state import SteadyStateWait
from orchestrator.domain.run.clocks import NodeClock
from orchestrator.domain.run.question_sets import QuestionSet
from shared.kernel.build import SoftwareBuild
from shared.kernel.records import (
    CampaignId,
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
    equals,
    is_absent,
    is_empty,
)
from shared.llama.build import EngineBuild
from shared.wire.meter_api import TraceEvent
from shared.wire.node_jobs.activity import AgentActivity
from shared.wire.node_jobs.artifacts import FetchResult
from shared.wire.node_jobs.engines import EngineBuffers
from shared.wire.node_jobs.host import NodeFacts
from shared.wire.node_jobs.load import MachineLoad
from shared.wire.surgeries import SurgeryTable

RULES_VERSION = 2
"""The set of rules that judges what this version measures; results say theirs, and older ones are judged as before."""


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


class Environment(Record):
    """The published environment block; unknown is null."""

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
    gpu_layers: int = Field(default=0, exclude_if=equals(0), description="layers on the machine's own GPU")
    buffers: dict[NodeName, EngineBuffers] = Field(
        default_factory=dict, exclude_if=is_empty,
        description="what the engine says it has allocated on each node, its own process counted at the root",
    )  # fmt: skip


class NodeMemoryUse(Record):
    """Memory of one node in one run, in bytes: calculated before, reported by the engine, measured by the kernel."""

    calculated: NodeFit | None = Field(default=None, description="null: not known")
    reported: EngineBuffers | None = Field(default=None, description="null: the engine does not say")
    engine_peak_rss_bytes: int | None = Field(
        default=None, description="largest resident set; with the model file's mapped pages, which the kernel may drop"
    )
    worker_peak_rss_bytes: int | None = Field(default=None, description="null: no worker on this node")


class Provenance(Record):
    """From what the result comes; unknown is null."""

    plan_sha256: Sha256 | None = None
    model_sha256: Sha256 | None = Field(default=None, description="the file the engine loaded")
    base_sha256: Sha256 | None = None
    statistics_sha256: Sha256 | None = None
    spec_sha256: Sha256 | None = Field(default=None, description="the frozen campaign spec")
    output_sha256: Sha256 | None = Field(default=None, description="all token ids the decode workload generated")
    engine: EngineName | None = Field(default=None, description="of the headline window")
    engine_build: str | None = None
    windows: dict[WindowLabel, ServedBy] = Field(
        default_factory=dict, description="which engine each figure comes from; accuracy is that of `score`"
    )
    lm_eval_version: str | None = None
    epi_factory_version: str | None = Field(default=None, description="of the orchestrator, with its build")
    software: dict[str, SoftwareBuild] = Field(
        default_factory=dict, exclude_if=is_empty,
        description="what each agent of the run ran: nodes by name, orchestrator, surgeon, meter",
    )  # fmt: skip
    engines: dict[NodeName, EngineBuild] = Field(
        default_factory=dict, exclude_if=is_empty,
        description="llama.cpp as each node of the run has it installed, with its compile flags",
    )  # fmt: skip
    distributed_llama_version: str | None = None
    task_names: tuple[str, ...] = ()
    question_sets: tuple[QuestionSet, ...] = Field(
        default=(), exclude_if=is_empty, description="what the score window asked; empty: it asked nothing, or unknown"
    )


class AnswerSource(Record):
    """Where a run's answers come from, when its score window did not ask them."""

    answer_set_sha256: Sha256 = Field(description="of everything that the answers depend on")
    served: ServedBy = Field(description="the engine that answered, the model, and the machines it ran on")
    scored_utc_ns: int = Field(description="when the last question was answered")
    question_sets: tuple[QuestionSet, ...] = Field(default=(), exclude_if=is_empty, description="what was asked")


class WindowLoad(Record):
    """What the nodes in use did around one window: from the end of the window before, or from its gap, to its own."""

    label: WindowLabel
    nodes: dict[NodeName, MachineLoad] = Field(description="nodes that told it: not one whose agent began anew")


class SurgeriesDone(Record):
    """What made a variant that is more than one plan: surgeries in order, each decision made, and their proof."""

    surgeries: tuple[SurgeryTable, ...] = Field(description="kinds with their parameters, in order")
    sha256: Sha256 = Field(description="hash that names them")
    brought_by: dict[str, str] = Field(
        default_factory=dict, description="kind -> package and version, of others' kinds"
    )
    proved_bytes: int = Field(description="bytes that were compared with what they make of the base")


class RunInput(Record):
    """Everything known of one run but its samples and answers: what `run_NNN.json` holds and `evaluate_run` reads.

    Windows and markers are in UTC ns of the orchestrator's clock, as recorded: not yet shifted by the lag.
    """

    former_names: ClassVar = {
        "silence": "agent_activity",
        "window_silence": "window_agent_activity",
        "stabilisation": "steady_state",
        "register_j": "energy_register_j",
    }

    schema_version: Literal[1] = 1
    run_id: str = Field(min_length=1, description="unique within the campaign, for example drop3_late/rep-2")
    campaign_id: CampaignId
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
    agent_activity: dict[NodeName, AgentActivity] = Field(
        default_factory=dict, description="what each node's agent did from before the first window to after the last"
    )
    nodes: tuple[NodeName, ...] | None = Field(
        default=None, description="the nodes in use, whose energy counts; null counts every channel of the trace"
    )
    window_agent_activity: dict[WindowLabel, AgentActivity] = Field(
        default_factory=dict, description="what the root's agent did from the start to the end of each workload"
    )
    deliveries: dict[NodeName, FetchResult] = Field(
        default_factory=dict, description="how this run's model reached the nodes that need it, with the bytes sent"
    )
    memory: dict[NodeName, NodeMemoryUse] = Field(
        default_factory=dict, exclude_if=is_empty, description="what the run's model took, node by node"
    )
    steady_state: SteadyStateWait | None = None
    clocks: dict[NodeName, NodeClock] = Field(
        default_factory=dict, exclude_if=is_empty,
        description="each node's clock against the orchestrator's, before and after; {}: an earlier version",
    )  # fmt: skip
    window_loads: tuple[WindowLoad, ...] = Field(
        default=(), exclude_if=is_empty,
        description="who used the nodes' processors around each window, in order; (): an earlier version",
    )  # fmt: skip
    windows: tuple[Window, ...]
    markers: tuple[MarkerLoad, ...] = ()
    energy_register_j: dict[NodeName, float | None] | None = Field(
        default=None, description="the meter's own energy register between first and last sample of the trace"
    )
    meter_events: tuple[TraceEvent, ...] = ()
    calibrated_utc_ns: int | None = Field(default=None, description="when the instrument was last calibrated")
    answers: AnswerSource | None = Field(
        default=None, exclude_if=is_absent, description="null: asked in the score window, or not answered yet"
    )
    plan: SurgeryPlan | None = None
    surgeries: SurgeriesDone | None = Field(
        default=None, exclude_if=is_absent, description="instead of a plan, where a variant is more than one"
    )
    provenance: Provenance = Provenance()
    protocol: MeasurementProtocol = MeasurementProtocol()
    rules_version: int = Field(
        default=1, ge=1, exclude_if=equals(1),
        description="which set of rules judges the run: 2 holds repetitions against each other; 1: an earlier version",
    )  # fmt: skip

    @property
    def question_sets(self) -> tuple[QuestionSet, ...]:
        """Return what its accuracy was asked of; empty where an earlier version measured it, or no answer came yet."""
        return self.provenance.question_sets if self.answers is None else self.answers.question_sets

    @property
    def configuration_id(self) -> ConfigurationId:
        """Return the id of the configuration."""
        return self.configuration.id

    @property
    def reference(self) -> RunReference:
        """Return which run of its campaign it is."""
        return RunReference(configuration=self.configuration.id, repetition=self.repetition)
