"""`epi_NNN.json` as version 0.1.0 wrote it (`epi-result/1`): the evaluation's fields lay beside the published blocks.

Read here and nowhere else, and never written.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field

from orchestrator.domain.campaign.protocol import AccuracyField, AccuracyTask, TokenBasis
from orchestrator.domain.run.accuracy import AccuracyResult
from orchestrator.domain.run.energy import PhaseEnergy, WindowEnergy
from orchestrator.domain.run.energy_register import EnergyRegisterCheck
from orchestrator.domain.run.epi import EpiValue
from orchestrator.domain.run.evaluate import Lag, RunEvaluation, RunUncertainty
from orchestrator.domain.run.findings import Validity
from orchestrator.domain.run.per_question import QuestionEnergySummary
from orchestrator.results.blocks import PublishedResult
from shared.kernel.records import NodeName, Record, TokenLedger, WindowLabel

LAYOUT_1 = "epi-result/1"


class AccuracyDetail1(Record):
    """How the accuracy was made."""

    tasks: dict[AccuracyField, AccuracyTask]
    note: str
    n_questions: dict[AccuracyField, int]
    n_correct: dict[AccuracyField, int]
    weights: dict[AccuracyField, float]
    standard_uncertainty: float | None


class EpiFile1(PublishedResult):
    """The first layout."""

    former_names: ClassVar = {"register_check": "energy_register_check"}

    schema_version: Literal["epi-result/1"]
    accuracy_detail: AccuracyDetail1
    ledgers: dict[WindowLabel, TokenLedger]
    lag: Lag
    windows: tuple[WindowEnergy, ...]
    phases: dict[WindowLabel, PhaseEnergy]
    idle_watts: dict[NodeName, float] | None
    epi_by_basis: dict[TokenBasis, EpiValue] = Field(min_length=1)
    net_joules_per_token: float | None
    joules_per_question: float | None
    joules_per_correct: float | None
    question_energy: QuestionEnergySummary = QuestionEnergySummary(resolved=0, unresolved={})
    energy_register_check: tuple[EnergyRegisterCheck, ...] = ()
    uncertainty: RunUncertainty
    validity: Validity
    window_validity: tuple[Validity, ...]

    def evaluation(self) -> RunEvaluation:
        """Return the evaluation that the file was written from."""
        detail, accuracy = self.accuracy_detail, self.accuracy
        return RunEvaluation(
            run_id=self.run_metadata.run_id,
            configuration_id=self.surgery,
            repetition=self.run_metadata.repetition,
            token_basis=self.token_basis,
            lag=self.lag,
            windows=self.windows,
            idle_watts=self.idle_watts,
            phases=self.phases,
            accuracy=AccuracyResult(
                shares=accuracy.model_dump(exclude={"composite"}, exclude_none=True),
                composite=accuracy.composite,
                reason="" if accuracy.composite is not None else self.no_epi_reason,
                n_questions=detail.n_questions,
                n_correct=detail.n_correct,
                weights=detail.weights,
                standard_uncertainty=detail.standard_uncertainty,
            ),
            epi_by_basis=self.epi_by_basis,
            net_joules_per_token=self.net_joules_per_token,
            joules_per_question=self.joules_per_question,
            joules_per_correct=self.joules_per_correct,
            energy_register_check=self.energy_register_check,
            question_energy=self.question_energy,
            uncertainty=self.uncertainty,
            validity=self.validity,
            window_validity=self.window_validity,
        )

    def fields_today(self) -> dict[str, Any]:
        """Return the fields of today's layout but for its version."""
        common = set(PublishedResult.model_fields) - {"schema_version"}
        detail = self.accuracy_detail
        return {
            **self.model_dump(include=common),
            "accuracy_detail": {"tasks": detail.tasks, "note": detail.note},
            "evaluation": self.evaluation(),
        }
