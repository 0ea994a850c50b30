"""From one run's samples, windows and answers to its energy, accuracy, EPI and validity.

`evaluate_run` is what the campaign's runner calls; what it returns is what `orchestrator.results` writes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot, sqrt
from typing import Self

from pydantic import Field, model_validator

from orchestrator.domain.campaign.protocol import TokenBasis
from orchestrator.domain.run.accuracy import AccuracyResult, measure_accuracy
from orchestrator.domain.run.alignment import LagFit, Trace, combine_lags, fit_lag, shift_window
from orchestrator.domain.run.carried import CarriedAccuracy, check_carried, compare_answers
from orchestrator.domain.run.disturbances import check_clocks, check_loads, check_stalls
from orchestrator.domain.run.energy import (
    PhaseEnergy,
    WindowEnergy,
    idle_watts,
    phase_energy,
    subtract_idle,
    window_energy,
)
from orchestrator.domain.run.energy_register import EnergyRegisterCheck, check_energy_register
from orchestrator.domain.run.epi import PHASE_OF_BASIS, EpiValue, epi, tokens_on
from orchestrator.domain.run.findings import Finding, Validity, judge
from orchestrator.domain.run.per_question import (
    QuestionEnergy,
    QuestionEnergySummary,
    question_energies,
    summarise_questions,
)
from orchestrator.domain.run.records import RunInput
from orchestrator.domain.run.validity import (
    check_agent_quiet,
    check_energy_registers,
    check_lag,
    check_run,
    check_software,
    check_steady_state,
    check_surroundings,
    check_window,
)
from shared.kernel.errors import DataError
from shared.kernel.records import ConfigurationId, NodeName, QuestionResult, Record, WindowLabel, is_absent

_LATEST_UTC_NS = 7_258_118_400_000_000_000  # 2200-01-01
PHASES: tuple[WindowLabel, ...] = ("idle", "prefill", "decode", "score")


class Lag(Record):
    """The meter's lag that the windows were shifted by."""

    lag_s: float
    uncertainty_s: float
    accepted: bool
    reason: str = ""


class RunUncertainty(Record):
    """Relative standard uncertainties (1 sigma) of one run's EPI on the headline basis; null where unknown.

    Repetition spread is a property of the configuration, not of one run: it stands in the campaign's results.
    """

    instrument: float | None = None
    lag: float | None = None
    accuracy: float | None = None
    carried: float | None = Field(
        default=None, exclude_if=is_absent, description="of accuracy that was scored elsewhere than on the cluster"
    )
    combined: float | None = Field(default=None, description="root sum of squares; null when a part is unknown")


class RunEvaluation(Record):
    """All that is calculated from one run. Energies in joules, windows on the meter's axis (lag applied)."""

    run_id: str
    configuration_id: ConfigurationId
    repetition: int
    token_basis: TokenBasis
    lag: Lag
    windows: tuple[WindowEnergy, ...]
    idle_watts: dict[NodeName, float] | None
    phases: dict[WindowLabel, PhaseEnergy]
    accuracy: AccuracyResult
    carried: CarriedAccuracy | None = Field(
        default=None, exclude_if=is_absent, description="the cluster's own answers beside those of the answer set"
    )
    epi_by_basis: dict[TokenBasis, EpiValue]
    net_joules_per_token: float | None = None
    joules_per_question: float | None = None
    joules_per_correct: float | None = None
    energy_register_check: tuple[EnergyRegisterCheck, ...] = ()
    question_energy: QuestionEnergySummary = QuestionEnergySummary(resolved=0, unresolved={})
    uncertainty: RunUncertainty
    validity: Validity
    window_validity: tuple[Validity, ...] = Field(description="one per window, in order")

    @model_validator(mode="after")
    def _headline_basis_is_there(self) -> Self:
        if self.token_basis not in self.epi_by_basis:
            raise ValueError(f"epi_by_basis lacks the headline basis {self.token_basis}")
        return self

    @property
    def headline(self) -> PhaseEnergy | None:
        """The phase of the headline basis; None where no such window was measured."""
        return self.phases.get(PHASE_OF_BASIS[self.token_basis])

    @property
    def total_tokens(self) -> int | None:
        """Tokens of the headline basis."""
        return None if self.headline is None else tokens_on(self.token_basis, self.headline)

    @property
    def epi(self) -> EpiValue:
        """EPI on the headline basis."""
        return self.epi_by_basis[self.token_basis]


@dataclass(frozen=True)
class EvaluatedRun:
    """A run's evaluation, and the energy of each question, in order: too many for the result, kept with the answers."""

    evaluation: RunEvaluation
    question_energy: tuple[QuestionEnergy, ...]


def evaluate_run(
    run: RunInput,
    traces: Mapping[NodeName, Trace],
    questions: Sequence[QuestionResult],
    sample: Sequence[QuestionResult] = (),
) -> EvaluatedRun:
    """Evaluate one run from the traces of all its channels.

    `questions` make the accuracy. Where they were answered elsewhere, `sample` is what the score window asked; else
    the score window asked them all.

    They must reach beyond the first and the last window by the gap limit plus the largest lag, since an edge needs a
    sample on both of its sides. Nothing here fails on bad measurements: they yield null values with reasons.

    Raises:
        DataError: a time is no time, a question was answered twice, or a node in use has no channel.
    """
    protocol = run.protocol
    traces = _of_nodes_in_use(run, traces)
    _check_times(run, [*questions, *sample])
    lag = _on_our_clock(run, _lag(run, traces))
    measured = [
        window_energy(
            traces,
            shift_window(window, lag.lag_s),
            gap_limit_s=protocol.rules.gap_limit_s,
            lag_uncertainty_s=lag.uncertainty_s,
        )
        for window in run.windows
        if window.label != "marker"
    ]
    idle_w = idle_watts(measured)
    windows = tuple(subtract_idle(window, idle_w) for window in measured)
    phases = {label: phase for label in PHASES if (phase := phase_energy(label, windows)) is not None}
    elsewhere = protocol.accuracy_where != "cluster"
    accuracy = _accuracy(run, questions)
    carried = compare_answers(sample, questions, protocol.accuracy) if elsewhere else None
    asked = sample if elsewhere else questions
    by_basis = {
        basis: epi(basis, phases.get(label), accuracy.composite, accuracy.reason)
        for basis, label in PHASE_OF_BASIS.items()
        if basis == protocol.token_basis or (label in phases and tokens_on(basis, phases[label]) > 0)
    }
    headline = phases.get(PHASE_OF_BASIS[protocol.token_basis])
    tokens = None if headline is None else tokens_on(protocol.token_basis, headline)
    net = None if headline is None else headline.net_joules
    score = phases.get("score")
    score_j = None if score is None else score.total_joules
    correct = sum(question.correct for question in asked)
    names = _names(windows)
    per_window = [check_window(window, protocol.rules, name) for window, name in zip(windows, names, strict=True)]
    registers = check_energy_register(traces, run.energy_register_j, protocol.rules.gap_limit_s)
    around = [
        *check_run(run), *check_lag(lag), *_complete(run, phases), *check_surroundings(run, windows, names),
        *check_energy_registers(registers, protocol.rules), *check_agent_quiet(run),
        *check_steady_state(run), *check_stalls(run), *check_clocks(run), *check_loads(run), *check_software(run),
        *check_carried(carried, protocol.rules.max_other_choices),
    ]  # fmt: skip
    gap_limit_s = protocol.rules.gap_limit_s
    per_question = question_energies(traces, asked, lag_s=lag.lag_s, gap_limit_s=gap_limit_s)
    evaluation = RunEvaluation(
        run_id=run.run_id,
        configuration_id=run.configuration_id,
        repetition=run.repetition,
        token_basis=protocol.token_basis,
        lag=Lag(lag_s=lag.lag_s, uncertainty_s=lag.uncertainty_s, accepted=lag.accepted, reason=lag.reason),
        windows=windows,
        idle_watts=idle_w,
        phases=phases,
        accuracy=accuracy,
        carried=carried,
        epi_by_basis=by_basis,
        net_joules_per_token=None if net is None or not tokens else net / tokens,
        joules_per_question=score_j / len(asked) if score_j is not None and asked else None,
        joules_per_correct=score_j / correct if score_j is not None and correct else None,
        energy_register_check=registers,
        question_energy=summarise_questions(per_question),
        uncertainty=_uncertainty(run, headline, accuracy, carried),
        validity=judge([*around, *(finding for findings in per_window for finding in findings)]),
        window_validity=tuple(judge(findings) for findings in per_window),
    )
    return EvaluatedRun(evaluation, per_question)


def _of_nodes_in_use(run: RunInput, traces: Mapping[NodeName, Trace]) -> Mapping[NodeName, Trace]:
    """Return the traces whose energy counts: a configuration on two nodes is not charged for two that stand by."""
    if run.nodes is None:
        return traces
    if missing := [name for name in run.nodes if name not in traces]:
        raise DataError(f"the trace has no channel of {', '.join(missing)}", where=run.run_id)
    return {name: traces[name] for name in run.nodes}


def _check_times(run: RunInput, questions: Sequence[QuestionResult]) -> None:
    times = [edge for window in run.windows for edge in (window.start_utc_ns, window.end_utc_ns)]
    times += [edge for marker in run.markers for edge in (marker.start_utc_ns, marker.end_utc_ns)]
    times += [edge for question in questions for edge in (question.start_utc_ns or 0, question.end_utc_ns or 0)]
    if any(not 0 <= time < _LATEST_UTC_NS for time in times):
        raise DataError("a window, marker or question lies outside the years 1970..2199", where=run.run_id)


def _lag(run: RunInput, traces: Mapping[NodeName, Trace]) -> LagFit:
    span = run.protocol.lag_range_s
    fits = [fit_lag(traces[marker.node], marker, span) for marker in run.markers if marker.node in traces]
    return combine_lags(fits, span)


def _on_our_clock(run: RunInput, lag: LagFit) -> LagFit:
    """Widen the lag by how uncertain the root's times are on the orchestrator's clock, which the trace is told by."""
    clocks = [run.clocks[marker.node] for marker in run.markers if marker.node in run.clocks]
    if not clocks:
        return lag
    return replace(lag, uncertainty_s=hypot(lag.uncertainty_s, max(clock.uncertainty_s for clock in clocks)))


def _names(windows: Sequence[WindowEnergy]) -> list[str]:
    seen: dict[str, int] = {}
    names: list[str] = []
    for window in windows:
        seen[window.label] = seen.get(window.label, 0) + 1
        names.append(f"{window.label}[{seen[window.label] - 1}]")
    return names


def _complete(run: RunInput, phases: dict[WindowLabel, PhaseEnergy]) -> list[Finding]:
    needed: list[WindowLabel] = [PHASE_OF_BASIS[run.protocol.token_basis]]
    if run.protocol.accuracy_where == "cluster":
        needed.append("score")
    return [
        Finding(rule="complete", verdict="FAIL", reason=f"no {label} window was measured", where="run")
        for label in dict.fromkeys(needed)
        if label not in phases
    ]


def _accuracy(run: RunInput, questions: Sequence[QuestionResult]) -> AccuracyResult:
    accuracy = measure_accuracy(questions, run.protocol.accuracy)
    if run.protocol.accuracy_where != "cluster" and run.answers is None and not questions:
        return accuracy.model_copy(update={"reason": "its questions are not answered yet"})
    return accuracy


def _uncertainty(
    run: RunInput, headline: PhaseEnergy | None, accuracy: AccuracyResult, carried: CarriedAccuracy | None
) -> RunUncertainty:
    instrument = run.instrument.relative_uncertainty
    lag: float | None = None
    if headline is not None and headline.total_joules and headline.lag_uncertainty_joules is not None:
        lag = abs(headline.lag_uncertainty_joules / headline.total_joules)
    sampling: float | None = None
    if accuracy.composite and accuracy.standard_uncertainty is not None:
        sampling = accuracy.standard_uncertainty / accuracy.composite
    from_carrying = carried.standard_uncertainty / accuracy.composite if carried and accuracy.composite else None
    combined: float | None = None
    if instrument is not None and lag is not None and sampling is not None:
        combined = sqrt(instrument**2 + lag**2 + sampling**2 + (from_carrying or 0.0) ** 2)
    return RunUncertainty(instrument=instrument, lag=lag, accuracy=sampling, carried=from_carrying, combined=combined)
