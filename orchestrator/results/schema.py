"""The result files as pydantic models: the published schema of `epi_NNN.json`, extended and never contradicted.

`run_NNN.json` holds `domain.run.records.RunInput` as it is; the power trace is CSV. Unknown is null.
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from orchestrator.domain.analysis.interim import InterimAnalysis
from orchestrator.domain.campaign.fit import ConfigurationFit
from orchestrator.domain.campaign.protocol import AccuracyField, AccuracyTask, MeasurementProtocol
from orchestrator.domain.run.evaluate import RunEvaluation
from orchestrator.domain.run.per_question import QuestionEnergy
from orchestrator.domain.run.records import RunInput
from orchestrator.results.blocks import (
    AccuracyBlock,
    EnergyBlock,
    EpiBlock,
    PublishedResult,
    RunMetadata,
    ServingDetail,
    SurgeryDetail,
    differing_figures,
)
from orchestrator.results.layout_1 import LAYOUT_1, EpiFile1
from shared.kernel.build import SoftwareBuild
from shared.kernel.records import (
    CampaignId,
    Configuration,
    ConfigurationId,
    Instrument,
    NodeName,
    QuestionResult,
    Record,
    Sha256,
    equals,
)
from shared.llama.build import EngineBuild
from shared.wire.node_jobs.artifacts import FetchResult


class AccuracyDetail(Record):
    """Which tasks fill the accuracy fields; counts, weights and uncertainty are in `evaluation.accuracy`."""

    tasks: dict[AccuracyField, AccuracyTask]
    note: str


class EpiFile(PublishedResult):
    """`epi_NNN.json`: what was calculated from a run, whole, and the published blocks as a view of it.

    Windows are on the meter's time axis, so that energy is the integral of the CSV over them. A file whose blocks do
    not follow from its evaluation is refused. Files of `epi-result/1` are read, and written anew in this layout.
    """

    schema_version: Literal["epi-result/2"] = "epi-result/2"
    accuracy_detail: AccuracyDetail
    evaluation: RunEvaluation

    @model_validator(mode="before")
    @classmethod
    def _read_layout_1(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("schema_version") == LAYOUT_1:
            return EpiFile1.model_validate(data).fields_today()
        return data

    @model_validator(mode="after")
    def _blocks_follow_from_the_evaluation(self) -> Self:
        evaluation, metadata = self.evaluation, self.run_metadata
        energy, accuracy, epi = _blocks(evaluation)
        wrong = [f"energy.{name}" for name in differing_figures(self.energy, energy)]
        wrong += [f"accuracy.{name}" for name in differing_figures(self.accuracy, accuracy)]
        wrong += [f"epi.{name}" for name in differing_figures(self.epi, epi)]
        for name, written, computed in (
            ("surgery", self.surgery, evaluation.configuration_id),
            ("run_metadata.run_id", metadata.run_id, evaluation.run_id),
            ("run_metadata.repetition", metadata.repetition, evaluation.repetition),
            ("token_basis", self.token_basis, evaluation.token_basis),
            ("no_epi_reason", self.no_epi_reason, evaluation.epi.reason),
            ("emulated", self.emulated, self.instrument_detail.emulated),
        ):
            if written != computed:
                wrong.append(name)
        if wrong:
            raise ValueError(f"what the file says of {', '.join(wrong)} does not follow from the evaluation in it")
        return self

    @classmethod
    def of(cls, run: RunInput, evaluation: RunEvaluation) -> Self:
        """Lay a run's evaluation out as the file holds it."""
        energy, accuracy, epi = _blocks(evaluation)
        return cls(
            model=run.model,
            quantization=run.configuration.quantization,
            surgery=evaluation.configuration_id,
            hardware=run.hardware,
            instrument=run.instrument.name,
            measurement_point=run.instrument.measurement_point,
            environment=run.environment,
            energy=energy,
            accuracy=accuracy,
            epi=epi,
            run_metadata=RunMetadata.of(run),
            emulated=run.instrument.emulated,
            token_basis=evaluation.token_basis,
            no_epi_reason=evaluation.epi.reason,
            surgery_detail=SurgeryDetail.of(run),
            serving_detail=ServingDetail.of(run),
            instrument_detail=run.instrument,
            provenance=run.provenance.model_copy(update={"question_sets": run.question_sets}),
            accuracy_detail=AccuracyDetail(tasks=run.protocol.accuracy, note=run.protocol.accuracy_note),
            evaluation=evaluation,
        )


def _blocks(evaluation: RunEvaluation) -> tuple[EnergyBlock, AccuracyBlock, EpiBlock]:
    return EnergyBlock.of(evaluation), AccuracyBlock.of(evaluation.accuracy), EpiBlock.of(evaluation.epi)


class BenchmarkFile(Record):
    """`benchmark_NNN.json`: every answered question of the accuracy, and the cluster's own where others scored."""

    schema_version: Literal["epi-benchmark/1"] = "epi-benchmark/1"
    run_id: str
    configuration_id: ConfigurationId
    repetition: int
    accuracy_tasks: dict[AccuracyField, AccuracyTask]
    note: str
    questions: tuple[QuestionResult, ...] = Field(description="empty while those who score have not answered yet")
    sample: tuple[QuestionResult, ...] = Field(
        default=(), exclude_if=equals(()), description="what the score window asked, where others scored the questions"
    )
    question_energy: tuple[QuestionEnergy, ...] = Field(
        default=(), description="one per question of the score window, in order; empty when none has joules of its own"
    )


class CampaignFile(Record):
    """`campaign.json`: what was planned and which runs are in the tree; runs that failed are named with the reason."""

    former_names: ClassVar = {"looks": "interim_analyses"}

    schema_version: Literal["epi-campaign/1"] = "epi-campaign/1"
    campaign_id: CampaignId
    title: str = ""
    model: str
    hardware: str
    instrument: Instrument
    created_utc_ns: int
    repetitions: int = Field(ge=1)
    configurations: tuple[Configuration, ...]
    protocol: MeasurementProtocol = MeasurementProtocol()
    spec_sha256: Sha256 | None = None
    software: dict[str, SoftwareBuild] = Field(
        default_factory=dict,
        exclude_if=lambda builds: not builds,
        description="what each agent of the lab ran when the campaign was set running last",
    )
    engines: dict[NodeName, EngineBuild] = Field(
        default_factory=dict,
        exclude_if=lambda builds: not builds,
        description="llama.cpp as each node has it installed, with its compile flags",
    )
    base_deliveries: dict[NodeName, FetchResult] = Field(
        default_factory=dict, description="how the base model reached the nodes that need it, with the bytes sent"
    )
    memory: dict[ConfigurationId, ConfigurationFit] = Field(
        default_factory=dict,
        exclude_if=lambda fits: not fits,
        description="configuration -> calculated bytes on each node against what it has",
    )
    failures: dict[str, str] = Field(default_factory=dict, description="configuration or run id -> why it is missing")
    interim_analyses: tuple[InterimAnalysis, ...] = Field(
        default=(), description="interim analyses made so far, oldest first"
    )
