"""Rules over a whole campaign: completeness, the same conditions in all runs, methods that agree."""

from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.domain.analysis.campaign_data import Answers, is_valid
from orchestrator.domain.analysis.statistics import CampaignStatistics
from orchestrator.domain.campaign.matrix import reference_of
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.run.evaluate import RunEvaluation
from orchestrator.domain.run.findings import Finding, Validity, Verdict, judge
from orchestrator.domain.run.question_sets import QuestionSet
from orchestrator.domain.run.records import RunInput
from shared.kernel.records import Configuration

_MAX_WIDTH_RATIO = 1.25
"""Delta-method and bootstrap intervals of one ratio should not differ in width by more than this factor."""


def check_campaign(
    configurations: Sequence[Configuration],
    repetitions: int,
    inputs: Mapping[str, Sequence[RunInput]],
    runs: Mapping[str, Sequence[RunEvaluation]],
    answers: Mapping[str, Sequence[Answers]],
    statistics: CampaignStatistics,
) -> Validity:
    """Judge a campaign as a whole; the runs' own findings are not repeated, only counted."""
    found = _completeness(configurations, repetitions, runs)
    found += _sameness([run for group in inputs.values() for run in group])
    found += _same_questions([run for group in inputs.values() for run in group])
    found += _same_outputs([run for group in inputs.values() for run in group])
    found += _determinism(answers)
    if statistics.data is not None and statistics.spread.cv is None:
        reason = "the spread over repetitions is unknown: no interval, no verdict"
        found.append(_finding("repetitions", "FLAG", reason, "campaign"))
    found += _agreement(statistics)
    return judge(found)


def _completeness(
    configurations: Sequence[Configuration], repetitions: int, runs: Mapping[str, Sequence[RunEvaluation]]
) -> list[Finding]:
    found: list[Finding] = []
    for name in sorted({reference_of(item) for item in configurations if reference_of(item) != item.id}):
        if not any(is_valid(run) for run in runs.get(name, ())):
            reason = "this baseline has no valid run, so its variants have no ratio"
            found.append(_finding("reference", "FAIL", reason, name))
    for item in configurations:
        group = runs.get(item.id, ())
        valid = sum(is_valid(run) for run in group)
        if valid < repetitions:
            reason = f"{valid} valid of {repetitions} repetitions ({len(group)} measured)"
            found.append(_finding("complete", "FLAG", reason, item.id))
    return found


def _sameness(inputs: Sequence[RunInput]) -> list[Finding]:
    found: list[Finding] = []
    if not inputs:
        return found
    first = inputs[0]
    per_run: tuple[tuple[str, Verdict, str], ...] = (
        ("protocol", "FAIL", "was measured by another protocol than the first run"),
        ("model", "FAIL", "has another base model than the first run"),
    )
    for run in inputs[1:]:
        for name, verdict, reason in per_run:
            if getattr(run, name) != getattr(first, name):
                found.append(_finding(name, verdict, reason, run.run_id))
        if (run.instrument.name, run.instrument.kind, run.instrument.calibration_id) != (
            first.instrument.name, first.instrument.kind, first.instrument.calibration_id,
        ):  # fmt: skip
            reason = "has another instrument or calibration than the first run, so gains do not cancel"
            found.append(_finding("instrument", "FAIL", reason, run.run_id))
    models: dict[str, str] = {}
    alike: dict[tuple[str, str], RunInput] = {}
    for run in inputs:
        same = alike.setdefault((run.configuration.engine, run.configuration.quantization), run)
        for field in ("engine_build", "lm_eval_version", "base_sha256"):
            if getattr(run.provenance, field) != getattr(same.provenance, field):
                reason = f"{field} differs from {same.run_id}, which has the same engine and quantisation"
                found.append(_finding("software", "FLAG", reason, run.run_id))
        found += check_software_over_runs(same, run)
        digest = run.provenance.model_sha256
        if digest is not None and models.setdefault(run.configuration_id, digest) != digest:
            found.append(_finding("model", "FAIL", "repetitions ran different model files", run.run_id))
    return found


def _same_questions(inputs: Sequence[RunInput]) -> list[Finding]:
    """All runs of a campaign ask the same; one of an earlier version, which did not say what it asked, is passed."""
    found: list[Finding] = []
    first: dict[str, tuple[QuestionSet, RunInput]] = {}
    for run in inputs:
        for asked in run.question_sets:
            one, other = first.setdefault(asked.task, (asked, run))
            if asked.docs_sha256 != one.docs_sha256:
                what = f"other questions ({asked.docs_sha256[:12]}) than {other.run_id} ({one.docs_sha256[:12]})"
            elif asked.prompts_sha256 != one.prompts_sha256:
                what = f"another choice or wording of the questions than {other.run_id}"
            else:
                continue
            found.append(_finding("questions", "FAIL", f"{asked.task}: {what}", run.run_id))
    return found


def _same_outputs(inputs: Sequence[RunInput]) -> list[Finding]:
    """One model file, decoded greedily by one engine on the same nodes, writes the same tokens, or its bytes rotted."""
    found: list[Finding] = []
    first: dict[tuple[object, ...], RunInput] = {}
    for run in inputs:
        told = run.provenance
        if told.output_sha256 is None or told.model_sha256 is None:
            continue
        nodes = told.windows["decode"].nodes if "decode" in told.windows else run.nodes
        libraries = tuple(sorted((name, engine.libraries_sha256) for name, engine in told.engines.items()))
        same = first.setdefault((run.configuration_id, told.model_sha256, told.engine_build, nodes, libraries), run)
        if told.output_sha256 != same.provenance.output_sha256:
            reason = f"the decoded tokens differ from those of {same.run_id}, which had the same model file and engine"
            found.append(_finding("output", "FLAG", reason, run.run_id))
    return found


def check_software_over_runs(first: RunInput, run: RunInput) -> list[Finding]:
    """Name the agents whose code, or whose engine, is not what it was in an earlier run."""
    before, now = first.provenance, run.provenance
    reasons = [
        f"{name} ran {now.software[name]}, in {first.run_id} {build}"
        for name, build in before.software.items()
        if name in now.software and now.software[name].code_sha256 != build.code_sha256
    ]
    reasons += [
        f"the engine's libraries on {name} are not those of {first.run_id}"
        for name, engine in before.engines.items()
        if name in now.engines and now.engines[name].libraries_sha256 != engine.libraries_sha256
    ]
    return [_finding("software", "FLAG", reason, run.run_id) for reason in reasons]


def _determinism(answers: Mapping[str, Sequence[Answers]]) -> list[Finding]:
    found: list[Finding] = []
    for name, group in answers.items():
        if len(group) > 1:
            first = {(q.task, q.question_id): q.choice for q in group[0].questions}
            for other in group[1:]:
                changed = sum(first.get((q.task, q.question_id), q.choice) != q.choice for q in other.questions)
                if changed:
                    reason = f"{changed} answers differ from those of repetition {group[0].repetition}"
                    run = RunReference(configuration=name, repetition=other.repetition)
                    found.append(_finding("determinism", "FLAG", reason, run.format()))
    return found


def _agreement(statistics: CampaignStatistics) -> list[Finding]:
    found: list[Finding] = []
    for name, result in statistics.results.items():
        one, two = result.epi_ratio_interval, result.epi_ratio_interval_bootstrap
        if one is None or two is None:
            continue
        ratio = float(np.log(two.high / two.low) / np.log(one.high / one.low))
        if not 1 / _MAX_WIDTH_RATIO <= ratio <= _MAX_WIDTH_RATIO:
            reason = f"the bootstrap interval is {ratio:.2f} times as wide as the delta-method interval"
            found.append(_finding("methods", "FLAG", reason, name))
    return found


def _finding(rule: str, verdict: Verdict, reason: str, where: str) -> Finding:
    return Finding(rule=rule, verdict=verdict, reason=reason, where=where)
