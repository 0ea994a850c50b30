"""From result files back to evaluations: read as written, or calculated anew from samples and answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isclose
from pathlib import Path

from orchestrator.domain.run.accuracy import AccuracyResult
from orchestrator.domain.run.epi import PHASE_OF_BASIS, EpiValue
from orchestrator.domain.run.evaluate import RunEvaluation, evaluate_traces
from orchestrator.domain.run.records import RunInput
from orchestrator.results.files import json_bytes, list_runs, read_json, read_traces, write_bytes
from orchestrator.results.schema import AS_EVALUATED, BenchmarkFile, EpiFile


def evaluation_of(file: EpiFile) -> RunEvaluation:
    """Return the evaluation that an `epi_NNN.json` was written from."""
    detail, accuracy = file.accuracy_detail, file.accuracy
    reason = "" if accuracy.composite is not None else file.no_epi_reason
    return RunEvaluation(
        run_id=file.run_metadata.run_id,
        configuration_id=file.surgery,
        repetition=file.run_metadata.repetition,
        headline=file.phases.get(PHASE_OF_BASIS[file.token_basis]),
        total_tokens=file.energy.total_tokens,
        accuracy=AccuracyResult(
            mmlu_5shot=accuracy.mmlu_5shot,
            arc_challenge_25shot=accuracy.arc_challenge_25shot,
            hellaswag_10shot=accuracy.hellaswag_10shot,
            composite=accuracy.composite,
            reason=reason,
            n_questions=detail.n_questions,
            n_correct=detail.n_correct,
            weights=detail.weights,
            standard_uncertainty=detail.standard_uncertainty,
        ),
        epi=EpiValue(
            value=file.epi.value,
            joules_per_token=file.epi.joules_per_token,
            accuracy_composite=file.epi.accuracy_composite,
            reason=file.no_epi_reason,
        ),
        **{name: getattr(file, name) for name in AS_EVALUATED},
    )


def recompute_run(campaign_dir: Path, configuration_id: str, repetition: int) -> EpiFile:
    """Calculate a run's `epi_NNN.json` anew from its run, trace and benchmark files alone.

    Raises:
        DataError: a file is missing or damaged.
    """
    folder, number = campaign_dir / configuration_id, f"{repetition:03d}"
    run = read_json(RunInput, folder / f"run_{number}.json")
    questions = read_json(BenchmarkFile, folder / f"benchmark_{number}.json").questions
    traces = read_traces(folder / f"power_trace_{number}.csv")
    return EpiFile.of(run, evaluate_traces(run, traces, questions))


@dataclass(frozen=True)
class Recomputed:
    """One run calculated anew; `written` is None where there was no `epi_NNN.json`."""

    configuration_id: str
    repetition: int
    again: EpiFile
    written: EpiFile | None

    @property
    def differences(self) -> tuple[str, ...]:
        """Name the figures that differ by more than 1e-9 relative from what was written."""
        if self.written is None:
            return ()
        one, two = self.written.model_dump(), self.again.model_dump()
        return tuple(
            f"{block}.{name}: written {one[block][name]!r}, recomputed {two[block][name]!r}"
            for block in ("energy", "accuracy", "epi")
            for name in one[block]
            if not _same(one[block][name], two[block][name])
        )


def recompute_campaign(campaign_dir: Path) -> Iterator[Recomputed]:
    """Calculate every complete run anew, in order."""
    for name, repetition in list_runs(campaign_dir):
        path = campaign_dir / name / f"epi_{repetition:03d}.json"
        written = read_json(EpiFile, path) if path.exists() else None
        yield Recomputed(name, repetition, recompute_run(campaign_dir, name, repetition), written)


def write_recomputed(campaign_dir: Path, run: Recomputed) -> None:
    """Replace a run's `epi_NNN.json` by what was calculated anew."""
    write_bytes(campaign_dir / run.configuration_id / f"epi_{run.repetition:03d}.json", json_bytes(run.again))


def _same(one: float | None, two: float | None) -> bool:
    if one is None or two is None:
        return one is two
    return isclose(one, two, rel_tol=1e-9, abs_tol=0.0)
