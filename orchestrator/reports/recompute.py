"""From result files back to evaluations: read as written, or calculated anew from samples and answers."""

from pathlib import Path

from orchestrator.domain.accuracy import AccuracyResult
from orchestrator.domain.epi import PHASE_OF_BASIS, EpiValue
from orchestrator.domain.evaluate import RunEvaluation, evaluate_run
from orchestrator.reports.result_files import read_run, read_trace
from orchestrator.reports.schema import EpiFile


def evaluation_of(file: EpiFile) -> RunEvaluation:
    """Return the evaluation that an `epi_NNN.json` was written from."""
    detail, accuracy = file.accuracy_detail, file.accuracy
    reason = "" if accuracy.composite is not None else file.no_epi_reason
    return RunEvaluation(
        run_id=file.run_metadata.run_id,
        configuration_id=file.surgery,
        repetition=file.run_metadata.repetition,
        token_basis=file.token_basis,
        lag=file.lag,
        windows=file.windows,
        idle_watts=file.idle_watts,
        phases=file.phases,
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
        epi_by_basis=file.epi_by_basis,
        net_joules_per_token=file.net_joules_per_token,
        joules_per_question=file.joules_per_question,
        joules_per_correct=file.joules_per_correct,
        uncertainty=file.uncertainty,
        validity=file.validity,
        window_validity=file.window_validity,
    )


def recompute_run(campaign_dir: Path, configuration_id: str, repetition: int) -> tuple[EpiFile, EpiFile]:
    """Return (as written, calculated anew from run, trace and benchmark files).

    Raises:
        DataError: a file is missing or damaged.
    """
    files = read_run(campaign_dir, configuration_id, repetition)
    trace = campaign_dir / configuration_id / f"power_trace_{repetition:03d}.csv"
    samples = read_trace(trace, files.run.instrument)
    return files.epi, EpiFile.of(files.run, evaluate_run(files.run, samples, files.questions))
