"""The result files as pydantic models: the published schema of `epi_NNN.json`, extended and never contradicted.

`run_NNN.json` holds `domain.run.records.RunInput` as it is; the power trace is CSV. Unknown is null.
"""

from typing import ClassVar, Literal, Self

from pydantic import Field

from orchestrator.domain.analysis.interim import InterimAnalysis
from orchestrator.domain.campaign.matrix import reference_of
from orchestrator.domain.campaign.protocol import AccuracyField, AccuracyTask, MeasurementProtocol, TokenBasis
from orchestrator.domain.run.energy import PhaseEnergy, WindowEnergy
from orchestrator.domain.run.energy_register import EnergyRegisterCheck
from orchestrator.domain.run.epi import EpiValue
from orchestrator.domain.run.evaluate import Lag, RunEvaluation, RunUncertainty
from orchestrator.domain.run.per_question import QuestionEnergy, QuestionEnergySummary, summarise_questions
from orchestrator.domain.run.records import Environment, Provenance, RunInput
from orchestrator.domain.run.validity import Validity
from shared.kernel.clock import iso_utc
from shared.kernel.records import (
    Configuration,
    ConfigurationId,
    EngineName,
    Instrument,
    NodeName,
    QuestionResult,
    Record,
    Sha256,
    TokenLedger,
    WindowLabel,
)
from shared.wire.node_jobs.artifacts import FetchResult

AS_EVALUATED = (
    "token_basis", "lag", "windows", "phases", "idle_watts", "epi_by_basis", "net_joules_per_token",
    "joules_per_question", "joules_per_correct", "energy_register_check", "uncertainty", "validity", "window_validity",
)  # fmt: skip
"""Fields that `EpiFile` and `RunEvaluation` both have, by the same name and type."""


class SurgeryDetail(Record):
    """What was done to the model."""

    depth: int
    group: str
    layout: str
    method: str
    experts_per_token: int | None
    experts_dropped: int | None = Field(description="over all layers, from the plan")
    plan_sha256: Sha256 | None


class ServingDetail(Record):
    """How the model was served, and what the configuration is compared with."""

    serving: str = Field(default="", description="what differs from the campaign's usual serving")
    engine: EngineName = Field(default="llama.cpp", description="of the energy; provenance.windows has each window's")
    nodes: tuple[NodeName, ...] | None = Field(default=None, description="whose energy counts; null: all channels")
    reference: ConfigurationId | None = None


class EnergyBlock(Record):
    """The published energy block: the phase of the headline basis, gross, all nodes in use."""

    total_joules: float | None
    total_tokens: int | None
    joules_per_token: float | None
    avg_watts_cluster: float | None
    peak_watts_cluster: float | None
    duration_seconds: float | None
    kwh_total: float | None


class AccuracyBlock(Record):
    """The published accuracy block, as fractions."""

    mmlu_5shot: float | None
    arc_challenge_25shot: float | None
    hellaswag_10shot: float | None
    composite: float | None


class EpiBlock(Record):
    """The published EPI block, J/(token accuracy)."""

    value: float | None
    joules_per_token: float | None
    accuracy_composite: float | None


class RunMetadata(Record):
    """The published run metadata."""

    run_id: str
    timestamp_utc: str
    repetition: int
    epi_meter_firmware: str | None
    distributed_llama_version: str | None


class AccuracyDetail(Record):
    """How the accuracy was made."""

    tasks: dict[AccuracyField, AccuracyTask]
    note: str
    n_questions: dict[AccuracyField, int]
    n_correct: dict[AccuracyField, int]
    weights: dict[AccuracyField, float]
    standard_uncertainty: float | None


class EpiFile(Record):
    """`epi_NNN.json`. Windows are on the meter's time axis, so that energy is the integral of the CSV over them."""

    former_names: ClassVar = {"register_check": "energy_register_check"}

    schema_version: Literal["epi-result/1"] = "epi-result/1"
    model: str
    quantization: str
    surgery: str = Field(description="configuration id")
    hardware: str
    instrument: str
    measurement_point: str
    environment: Environment
    energy: EnergyBlock
    accuracy: AccuracyBlock
    epi: EpiBlock
    run_metadata: RunMetadata

    emulated: bool
    token_basis: TokenBasis
    no_epi_reason: str
    surgery_detail: SurgeryDetail
    serving_detail: ServingDetail = ServingDetail()
    instrument_detail: Instrument
    accuracy_detail: AccuracyDetail
    ledgers: dict[WindowLabel, TokenLedger]
    lag: Lag
    windows: tuple[WindowEnergy, ...]
    phases: dict[WindowLabel, PhaseEnergy]
    idle_watts: dict[NodeName, float] | None
    epi_by_basis: dict[TokenBasis, EpiValue]
    net_joules_per_token: float | None
    joules_per_question: float | None
    joules_per_correct: float | None
    question_energy: QuestionEnergySummary = QuestionEnergySummary(resolved=0, unresolved={})
    energy_register_check: tuple[EnergyRegisterCheck, ...] = ()
    uncertainty: RunUncertainty
    validity: Validity
    window_validity: tuple[Validity, ...]
    provenance: Provenance

    @classmethod
    def of(cls, run: RunInput, result: RunEvaluation) -> Self:
        """Lay a run's evaluation out as the file holds it."""
        headline, accuracy = result.headline, result.accuracy
        configuration = run.configuration
        return cls(
            model=run.model,
            quantization=configuration.quantization,
            surgery=configuration.id,
            hardware=run.hardware,
            instrument=run.instrument.name,
            measurement_point=run.instrument.measurement_point,
            environment=run.environment,
            energy=EnergyBlock(
                total_joules=None if headline is None else headline.total_joules,
                total_tokens=result.total_tokens,
                joules_per_token=result.epi.joules_per_token,
                avg_watts_cluster=None if headline is None else headline.avg_watts_cluster,
                peak_watts_cluster=None if headline is None else headline.peak_watts_cluster,
                duration_seconds=None if headline is None else headline.duration_seconds,
                kwh_total=None if headline is None else headline.kwh_total,
            ),
            accuracy=AccuracyBlock(
                mmlu_5shot=accuracy.mmlu_5shot,
                arc_challenge_25shot=accuracy.arc_challenge_25shot,
                hellaswag_10shot=accuracy.hellaswag_10shot,
                composite=accuracy.composite,
            ),
            epi=EpiBlock(
                value=result.epi.value,
                joules_per_token=result.epi.joules_per_token,
                accuracy_composite=result.epi.accuracy_composite,
            ),
            run_metadata=RunMetadata(
                run_id=run.run_id,
                timestamp_utc=iso_utc(run.timestamp_utc_ns),
                repetition=run.repetition,
                epi_meter_firmware=run.instrument.firmware,
                distributed_llama_version=run.provenance.distributed_llama_version,
            ),
            emulated=run.instrument.emulated,
            no_epi_reason=result.epi.reason,
            surgery_detail=SurgeryDetail(
                depth=configuration.depth,
                group=configuration.group,
                layout=configuration.layout,
                method=configuration.method,
                experts_per_token=configuration.experts_per_token,
                experts_dropped=None if run.plan is None else sum(len(layer) for layer in run.plan.dropped),
                plan_sha256=run.provenance.plan_sha256,
            ),
            serving_detail=ServingDetail(
                serving=configuration.serving,
                engine=configuration.engine,
                nodes=run.nodes,
                reference=reference_of(configuration),
            ),
            instrument_detail=run.instrument,
            accuracy_detail=AccuracyDetail(
                tasks=run.protocol.accuracy,
                note=run.protocol.accuracy_note,
                n_questions=accuracy.n_questions,
                n_correct=accuracy.n_correct,
                weights=accuracy.weights,
                standard_uncertainty=accuracy.standard_uncertainty,
            ),
            ledgers={label: phase.ledger for label, phase in result.phases.items()},
            question_energy=summarise_questions(result.question_energy),
            provenance=run.provenance,
            **{name: getattr(result, name) for name in AS_EVALUATED},
        )


class BenchmarkFile(Record):
    """`benchmark_NNN.json`: every answered question of the score window."""

    schema_version: Literal["epi-benchmark/1"] = "epi-benchmark/1"
    run_id: str
    configuration_id: ConfigurationId
    repetition: int
    accuracy_tasks: dict[AccuracyField, AccuracyTask]
    note: str
    questions: tuple[QuestionResult, ...]
    question_energy: tuple[QuestionEnergy, ...] = Field(
        default=(), description="one per question, in order; empty when none has joules of its own"
    )


class CampaignFile(Record):
    """`campaign.json`: what was planned and which runs are in the tree; runs that failed are named with the reason."""

    former_names: ClassVar = {"looks": "interim_analyses"}

    schema_version: Literal["epi-campaign/1"] = "epi-campaign/1"
    campaign_id: ConfigurationId
    title: str = ""
    model: str
    hardware: str
    instrument: Instrument
    created_utc_ns: int
    repetitions: int = Field(ge=1)
    configurations: tuple[Configuration, ...]
    protocol: MeasurementProtocol = MeasurementProtocol()
    spec_sha256: Sha256 | None = None
    base_deliveries: dict[NodeName, FetchResult] = Field(
        default_factory=dict, description="how the base model reached the nodes that need it, with the bytes sent"
    )
    failures: dict[str, str] = Field(default_factory=dict, description="configuration or run id -> why it is missing")
    interim_analyses: tuple[InterimAnalysis, ...] = Field(
        default=(), description="interim analyses made so far, oldest first"
    )
