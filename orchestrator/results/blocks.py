"""The blocks of `epi_NNN.json` that every layout has: the published ones, computed from the evaluation, and details.

Not here: the file as a whole (`schema`), and how version 0.1.0 laid it out (`layout_1`).
"""

from math import isclose
from typing import Self

from pydantic import Field

from orchestrator.domain.campaign.matrix import reference_of
from orchestrator.domain.campaign.protocol import TokenBasis
from orchestrator.domain.run.accuracy import AccuracyResult
from orchestrator.domain.run.epi import EpiValue
from orchestrator.domain.run.evaluate import RunEvaluation
from orchestrator.domain.run.records import Environment, Provenance, RunInput
from shared.kernel.clock import iso_utc
from shared.kernel.records import (
    ConfigurationId,
    EngineName,
    Instrument,
    LayerGroup,
    Layout,
    NodeName,
    Record,
    Sha256,
    is_absent,
    is_empty,
)


class EnergyBlock(Record):
    """The published energy block: the phase of the headline basis, gross, all nodes in use."""

    total_joules: float | None
    total_tokens: int | None
    joules_per_token: float | None
    avg_watts_cluster: float | None
    peak_watts_cluster: float | None
    duration_seconds: float | None
    kwh_total: float | None

    @classmethod
    def of(cls, evaluation: RunEvaluation) -> Self:
        """Return the block of an evaluation; all null without a window of the headline basis."""
        phase = evaluation.headline
        return cls(
            total_joules=None if phase is None else phase.total_joules,
            total_tokens=evaluation.total_tokens,
            joules_per_token=evaluation.epi.joules_per_token,
            avg_watts_cluster=None if phase is None else phase.avg_watts_cluster,
            peak_watts_cluster=None if phase is None else phase.peak_watts_cluster,
            duration_seconds=None if phase is None else phase.duration_seconds,
            kwh_total=None if phase is None else phase.kwh_total,
        )


class AccuracyBlock(Record):
    """The published accuracy block, as fractions; each is filled by the tasks it is named after, or null."""

    mmlu_5shot: float | None
    arc_challenge_25shot: float | None
    hellaswag_10shot: float | None
    composite: float | None

    @classmethod
    def of(cls, accuracy: AccuracyResult) -> Self:
        """Return the block of an accuracy."""
        return cls(
            mmlu_5shot=accuracy.shares.get("mmlu_5shot"),
            arc_challenge_25shot=accuracy.shares.get("arc_challenge_25shot"),
            hellaswag_10shot=accuracy.shares.get("hellaswag_10shot"),
            composite=accuracy.composite,
        )


class EpiBlock(Record):
    """The published EPI block, J/(token accuracy)."""

    value: float | None
    joules_per_token: float | None
    accuracy_composite: float | None

    @classmethod
    def of(cls, epi: EpiValue) -> Self:
        """Return the block of an EPI; why one is null stands in `no_epi_reason`."""
        return cls(
            value=epi.value, joules_per_token=epi.joules_per_token, accuracy_composite=epi.accuracy_composite
        )  # fmt: skip


class RunMetadata(Record):
    """The published run metadata."""

    run_id: str
    timestamp_utc: str
    repetition: int
    epi_meter_firmware: str | None
    distributed_llama_version: str | None

    @classmethod
    def of(cls, run: RunInput) -> Self:
        """Return the metadata of a run."""
        return cls(
            run_id=run.run_id,
            timestamp_utc=iso_utc(run.timestamp_utc_ns),
            repetition=run.repetition,
            epi_meter_firmware=run.instrument.firmware,
            distributed_llama_version=run.provenance.distributed_llama_version,
        )


class SurgeryDetail(Record):
    """What was done to the model."""

    depth: int
    group: LayerGroup
    layout: Layout
    method: str
    experts_per_token: int | None
    experts_dropped: int | None = Field(description="over all layers, from the plan")
    plan_sha256: Sha256 | None
    surgeries: tuple[str, ...] = Field(
        default=(), exclude_if=is_empty, description="kinds in order, where the variant is more than one plan"
    )
    surgeries_sha256: Sha256 | None = Field(default=None, exclude_if=is_absent, description="hash that names them")

    @classmethod
    def of(cls, run: RunInput) -> Self:
        """Return what was done to a run's model."""
        configuration = run.configuration
        return cls(
            depth=configuration.depth,
            group=configuration.group,
            layout=configuration.layout,
            method=configuration.method,
            experts_per_token=configuration.experts_per_token,
            experts_dropped=None if run.plan is None else sum(len(layer) for layer in run.plan.dropped),
            plan_sha256=run.provenance.plan_sha256,
            surgeries=() if run.surgeries is None else tuple(one.kind for one in run.surgeries.surgeries),
            surgeries_sha256=None if run.surgeries is None else run.surgeries.sha256,
        )


class ServingDetail(Record):
    """How the model was served, and what the configuration is compared with."""

    serving: str = Field(default="", description="what differs from the campaign's usual serving")
    engine: EngineName = Field(default="llama.cpp", description="of the energy; provenance.windows has each window's")
    nodes: tuple[NodeName, ...] | None = Field(default=None, description="whose energy counts; null: all channels")
    reference: ConfigurationId | None = None

    @classmethod
    def of(cls, run: RunInput) -> Self:
        """Return how a run's model was served."""
        configuration = run.configuration
        return cls(
            serving=configuration.serving,
            engine=configuration.engine,
            nodes=run.nodes,
            reference=reference_of(configuration),
        )


class PublishedResult(Record):
    """What every layout of the file has, by the same names: the published blocks first, then what explains them."""

    schema_version: str
    model: str
    quantization: str
    surgery: ConfigurationId = Field(description="configuration id")
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
    provenance: Provenance


def same_figure(one: object, two: object) -> bool:
    """Tell whether two published values are the same: numbers to 1e-9 relative, all else exactly."""
    if isinstance(one, float | int) and isinstance(two, float | int):
        return isclose(one, two, rel_tol=1e-9, abs_tol=0.0)
    return one == two


def differing_figures(one: Record, two: Record) -> tuple[str, ...]:
    """Return the names of the fields that two blocks of one kind do not share."""
    first, second = one.model_dump(), two.model_dump()
    return tuple(name for name in first if not same_figure(first[name], second[name]))
