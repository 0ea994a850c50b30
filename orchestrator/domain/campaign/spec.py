"""The campaign's frozen spec: what is measured, on what, how often. Its hash decides whether a campaign may resume."""

import hashlib
from itertools import product
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from orchestrator.domain.campaign.accuracy_tasks import AccuracySpec, TasksSpec
from orchestrator.domain.campaign.cells import ModelShape, is_reserved
from orchestrator.domain.campaign.matrix import MAX_DEPTH
from orchestrator.domain.campaign.protocol import AccuracyPlace, LagS, MeasurementProtocol, WindowRules
from orchestrator.domain.campaign.serving import MatrixOptions
from orchestrator.domain.campaign.steady_state import SteadyStateSpec
from orchestrator.domain.campaign.steps import FORMER_STEPS
from orchestrator.domain.campaign.surgeries import Drop, GivenFile
from orchestrator.domain.campaign.timeouts import TimeoutsSpec
from orchestrator.domain.campaign.variants import VariantSpec
from shared.kernel.records import (
    CampaignId,
    Configuration,
    ConfigurationId,
    EngineName,
    LayerGroup,
    NodeName,
    Record,
    canonical_bytes,
    dump_under_former_names,
    is_absent,
)
from shared.wire.names import Name
from shared.wire.node_jobs.workloads import MarkerParams

VariantName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
"""No id of the matrix, which is checked."""


class WorkloadSpec(Record):
    """A fixed workload: each of the prompts, `repeats` times, with exactly `tokens_each` tokens."""

    tokens_each: int = Field(ge=1, le=10_000_000, description="tokens of each prompt (prefill) or after each (decode)")
    prompts: int = Field(default=4, ge=1, le=64, description="how many of the fixed prompts are used")
    repeats: int = Field(default=1, ge=1, le=1_000_000, description="how often the prompts are gone through")


class WindowsSpec(Record):
    """Lengths of the windows; the defaults are those of a lab (docs/epi.md), the demo shortens them and says so."""

    former_names: ClassVar = {"settle_s": "gap_before_window_s", "stabilisation": "steady_state"}

    idle_s: float = Field(default=60.0, ge=0.1, le=86_400, description="length of the idle window")
    steady_state: SteadyStateSpec = Field(default=SteadyStateSpec(), description="before the first window")
    gap_before_window_s: float = Field(default=10.0, ge=0, le=86_400, description="waiting before each window")
    marker: MarkerParams = Field(
        default=MarkerParams(on_s=5.0, off_s=5.0, cycles=3), description="the load step that finds the meter's lag"
    )
    prefill: WorkloadSpec = Field(
        default=WorkloadSpec(tokens_each=512, repeats=4), description="workload of the prefill window"
    )
    decode: WorkloadSpec = Field(
        default=WorkloadSpec(tokens_each=256, repeats=2), description="workload of the decode window"
    )

    def tokens_of(self, label: str) -> int | None:
        """Return how many tokens a prefill or decode window counts; None for other windows."""
        workload = {"prefill": self.prefill, "decode": self.decode}.get(label)
        return None if workload is None else workload.prompts * workload.tokens_each * workload.repeats


class EngineSpec(Record):
    """Which engine serves, and how it is started; tags in a configuration's id say otherwise (docs/epi.md)."""

    name: EngineName = Field(default="llama.cpp", description="distributed-llama: accuracy is scored by llama.cpp")
    context_tokens: int = Field(default=8192, ge=64, le=100_000_000, description="context of each sequence")
    sequences: int = Field(default=32, ge=2, le=256, description="sequences scored at once")
    threads: int = Field(default=4, ge=1, le=4096, description="CPU threads of each node")


class InterimAnalysesSpec(Record):
    """The campaign is analysed after each repetition from the second on, and ends as soon as an analysis says so.

    The error of all analyses together is that of one (`orchestrator.domain.campaign.sequential`), since they are
    planned here.
    """

    precision: float | None = Field(
        default=None,
        ge=1e-6,
        le=10,
        description="stop when every 95 % interval of ln(EPI ratio) has at most this half-width",
    )


class GridSpec(Record):
    """Configurations as a product: every depth by every method in every group of layers in every serving."""

    depths: tuple[Drop, ...] = Field(min_length=1, description='for example [4, "25%", "50%"]')
    methods: tuple[Name, ...] = Field(default=(), description="rankings; none: the campaign's method")
    layers: tuple[LayerGroup, ...] = Field(default=("all",), min_length=1, description="groups of layers")
    servings: tuple[str, ...] = Field(default=("",), min_length=1, description='for example ["", "n1", "k2"]')

    def ids(self) -> tuple[str, ...]:
        """Return the ids of the product."""
        cells = (f"drop{str(depth).replace('%', 'pct')}_{group}" for depth in self.depths for group in self.layers)
        return tuple(
            ".".join(filter(None, (cell, method, serving)))
            for cell, method, serving in product(cells, self.methods or ("",), self.servings)
        )


def given_file(spec: "CampaignSpec", configuration: Configuration) -> str | None:
    """Return the surgeon's name of the file that somebody else cut, where a configuration measures one."""
    if configuration.variant is None:
        return None
    first = (spec.variants or {})[configuration.variant].surgeries[0]
    return first.name if isinstance(first, GivenFile) else None


_FILLED_IN = ("model_shape", "left_out", "accuracy_where", "fewest_nodes")
_SINCE_VERSION_2 = ("accuracy", "nodes", "grid", "variants", "skip_impossible")


class CampaignSpec(Record):
    """One campaign."""

    former_names: ClassVar = {"looks": "interim_analyses"}

    schema_version: Literal[1, 2] = Field(default=1, description="2: named variants, any depth, a list of tasks")
    id: CampaignId = Field(description="name of the campaign and of its result folder")
    description: str = Field(default="", description="title of the report")
    model: Name = Field(description="a model of the surgeon's settings")
    corpus: Name = Field(description="calibration corpus of the surgeon's settings")
    method: Name = Field(default="frequency", description="ranking that decides which experts go")
    quantization: str = Field(default="Q4_K_M", description="of the weights, as llama.cpp calls it")
    experts_per_token: int | None = Field(default=None, ge=1, le=4096, description="K; null keeps the model's own")
    n_nodes: int | None = Field(default=None, ge=1, le=10_000, description="null uses every node")
    nodes: Literal["all", "fewest"] | None = Field(
        default=None, exclude_if=is_absent, description="fewest: each on the fewest nodes whose memory holds it"
    )
    node_sets: dict[Name, tuple[NodeName, ...]] = Field(
        default_factory=dict, description="named sets of nodes for servings like `baseline.on-NAME`, the root first"
    )
    references: dict[ConfigurationId, ConfigurationId] = Field(
        default_factory=dict, description="configuration -> what it is compared with instead of the rule's choice"
    )
    configurations: str = Field(default="all", description="ids separated by commas, for example all,baseline.n2")
    grid: GridSpec | None = Field(default=None, exclude_if=is_absent, description="more configurations, as a product")
    variants: dict[VariantName, VariantSpec] | None = Field(
        default=None, exclude_if=is_absent, description="variants that no id of the matrix can say, by name"
    )
    model_shape: ModelShape | None = Field(
        default=None, exclude_if=is_absent,
        description="what is known of the model; filled in from the surgeon when the campaign is made",
    )  # fmt: skip
    left_out: dict[str, str] | None = Field(
        default=None, exclude_if=is_absent, description="filled in with skip_impossible: what can never run, and why"
    )
    accuracy_where: AccuracyPlace | None = Field(
        default=None, exclude_if=is_absent,
        description="filled in from the lab where the spec does not say: where the questions are answered",
    )  # fmt: skip
    fewest_nodes: dict[str, Annotated[int, Field(ge=1, le=10_000)]] | None = Field(
        default=None, exclude_if=is_absent, description="filled in from the lab: on how many nodes fewest serves each"
    )
    skip_impossible: bool | None = Field(
        default=None, exclude_if=is_absent, description="true: what can never run is left out instead of refused"
    )
    repetitions: int = Field(default=3, ge=1, le=100, description="of every configuration")
    max_attempts: int = Field(default=3, ge=1, le=100, description="tries at a run before the campaign stops")
    max_perplexity_ratio: float = Field(
        default=4.0, ge=1.001, le=1e6, description="quality gate: a variant whose perplexity rises more is not measured"
    )
    pipeline_ahead: int = Field(default=2, ge=0, le=8, description="variants the surgeon prepares behind a measurement")
    tasks: TasksSpec | None = Field(
        default=None, exclude_if=is_absent, description="version 1: the three published fields; else use accuracy"
    )
    accuracy: AccuracySpec | None = Field(
        default=None, exclude_if=is_absent, description="the tasks whose composite is the intelligence"
    )
    windows: WindowsSpec = Field(default=WindowsSpec(), description="lengths of the windows")
    engine: EngineSpec = Field(default=EngineSpec(), description="which engine serves, and how")
    rules: WindowRules = Field(default=WindowRules(), description="when a window is believed")
    timeouts: TimeoutsSpec = Field(default=TimeoutsSpec(), description="when a step counts as hanging")
    interim_analyses: InterimAnalysesSpec | None = Field(
        default=None, description="may the campaign stop early? null: all repetitions"
    )
    accuracy_note: str = Field(default="", description="stands beside every accuracy in the report")
    lag_range_s: tuple[LagS, LagS] = Field(default=(-0.25, 3.0), description="where the meter's lag is looked for")

    @model_validator(mode="after")
    def _interim_analyses_need_repetitions(self) -> Self:
        if self.interim_analyses is not None and self.repetitions < 2:
            raise ValueError("interim_analyses needs at least 2 repetitions: one shows no spread")
        return self

    @model_validator(mode="after")
    def _says_what_intelligence_is(self) -> Self:
        if (self.tasks is None) == (self.accuracy is None):
            raise ValueError(
                "accuracy: give either [accuracy] with its tasks, or [tasks] with the three published ones"
            )
        return self

    @model_validator(mode="after")
    def _new_things_need_version_2(self) -> Self:
        new = [name for name in _SINCE_VERSION_2 if getattr(self, name) is not None]
        if self.schema_version == 1 and new:
            raise ValueError(f"{new[0]} needs schema_version = 2")
        return self

    @model_validator(mode="after")
    def _nodes_are_said_once(self) -> Self:
        if self.nodes is not None and self.n_nodes is not None:
            raise ValueError("nodes: give either n_nodes or nodes")
        return self

    @model_validator(mode="after")
    def _variants_have_names_of_their_own(self) -> Self:
        if taken := [name for name in self.variants or {} if is_reserved(name)]:
            raise ValueError(f"variants.{taken[0]}: the matrix has this id already, choose another name")
        return self

    @property
    def selection(self) -> str:
        """Return the ids of all configurations, those of the grid written out."""
        return ",".join(filter(None, (self.configurations, *(self.grid.ids() if self.grid else ()))))

    @property
    def intelligence(self) -> AccuracySpec:
        """Return the tasks of the composite accuracy, however the spec writes them."""
        if self.accuracy is not None:
            return self.accuracy
        assert self.tasks is not None  # one of both is given
        return self.tasks.as_accuracy()

    @property
    def scored(self) -> AccuracyPlace:
        """Return where the questions are answered; as long as nobody knows, as the literal protocol says."""
        return self.intelligence.where or self.accuracy_where or "cluster"

    def usual(self) -> MatrixOptions:
        """Return what every configuration has that does not say otherwise."""
        return MatrixOptions(
            method=self.method, quantization=self.quantization, experts_per_token=self.experts_per_token,
            n_nodes=self.n_nodes, fewest=self.nodes == "fewest", fewest_nodes=self.fewest_nodes or {},
            engine=self.engine.name, node_sets=self.node_sets, references=self.references,
            variants=self.variants or {}, model_shape=self.model_shape, left_out=self.left_out or {},
            max_depth=MAX_DEPTH if self.schema_version == 1 else None,
        )  # fmt: skip

    def protocol(self) -> MeasurementProtocol:
        """Return how every run of this campaign is measured and judged."""
        return MeasurementProtocol(
            accuracy=self.intelligence.fields,
            accuracy_note=self.accuracy_note,
            rules=self.rules,
            lag_range_s=self.lag_range_s,
            gap_before_window_s=self.windows.gap_before_window_s,
            accuracy_where=self.scored,
        )

    def spec_hash(self) -> str:
        """Return the SHA-256 that decides whether two specs are one.

        Version 1: of all fields under the keys of that version, so that files of then keep their hash. Version 2: of
        what differs from the defaults, so that a new option does not turn a known file into another spec. What the lab
        fills in (`model_shape`) is never part of it.
        """
        if self.schema_version == 2:
            values = self.model_dump(mode="json", exclude_defaults=True, exclude=set(_FILLED_IN))
            return hashlib.sha256(canonical_bytes(values)).hexdigest()
        values = dump_under_former_names(self)
        for name in _FILLED_IN:
            values.pop(name, None)
        former = {name: old for old, name in FORMER_STEPS.items()}
        steps = values["timeouts"]["steps"]
        values["timeouts"]["steps"] = {former.get(step, step): seconds for step, seconds in steps.items()}
        return hashlib.sha256(canonical_bytes(values)).hexdigest()
