"""A campaign as arrays: runs and answers of all configurations, laid out for `paired` and `bootstrap`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.domain.analysis.paired import QuestionDesign
from orchestrator.domain.arrays import Floats, Ints
from orchestrator.domain.campaign.matrix import in_matrix_order, reference_of
from orchestrator.domain.campaign.protocol import AccuracyField, AccuracyTask
from orchestrator.domain.run.accuracy import MarkedQuestion, field_of, normalised_weights
from orchestrator.domain.run.evaluate import RunEvaluation
from shared.kernel.errors import DataError
from shared.kernel.records import Configuration, ConfigurationId

MIN_SUBJECTS = 5
"""With fewer subjects in a field its questions are taken as independent: so few clusters show no spread."""


@dataclass(frozen=True)
class Answers:
    """Answers of one run: its repetition and its questions."""

    repetition: int
    questions: Sequence[MarkedQuestion]


@dataclass(frozen=True)
class CampaignData:
    """Configurations with valid runs, in matrix order: [C] of everything, NaN where a run is missing.

    `barred` names configurations without a single valid run, with the reason.
    """

    configurations: tuple[Configuration, ...]
    reference: Ints
    log_j: Floats
    net_log_j: Floats
    sums: Floats
    design: QuestionDesign
    fields: tuple[AccuracyField, ...]
    clusters: tuple[str, ...]
    barred: Mapping[str, str]

    @property
    def root(self) -> Ints:
        """[C] index of what each configuration is compared with in the end: its reference's reference, and so on."""
        found = self.reference
        while (found != (further := self.reference[found])).any():
            found = further
        return found

    def to_root(self, log_ratio: Floats) -> Floats:
        """Return ln ratios [..., C] to the root from those to each configuration's own reference.

        Ratios of one chain multiply; only so are configurations comparable that have different references.
        """
        total, at = log_ratio.copy(), self.reference
        while (self.reference[at] != at).any():
            total += log_ratio[..., at]  # 0 where `at` is a root
            at = self.reference[at]
        return total

    def index(self, configuration_id: ConfigurationId) -> int | None:
        """Return the row of a configuration, or None."""
        return next((i for i, item in enumerate(self.configurations) if item.id == configuration_id), None)


def is_valid(run: RunEvaluation) -> bool:
    """Tell whether a run may enter the headline table."""
    return run.epi.value is not None and run.validity.verdict != "FAIL"


def barred_reason(runs: Sequence[RunEvaluation]) -> str:
    """Return why none of the runs, of which none is valid, may enter the headline table."""
    if not runs:
        return "no run"
    without = next((run for run in runs if run.epi.value is None), None)
    if without is not None:
        return without.epi.reason
    failed = next(finding for finding in runs[0].validity.findings if finding.verdict == "FAIL")
    return f"barred by validity: {failed.rule} ({failed.where}): {failed.reason}"


def campaign_data(
    configurations: Sequence[Configuration],
    runs: Mapping[str, Sequence[RunEvaluation]],
    answers: Mapping[str, Sequence[Answers]],
    mapping: Mapping[AccuracyField, AccuracyTask],
) -> CampaignData | None:
    """Lay out the valid runs; only questions that every configuration answered count. None without any valid run.

    A question's score is its mean over the valid repetitions (1 or 0 where the engine is deterministic). A variant
    whose reference has no valid run is barred.

    Raises:
        DataError: the configurations share no question of some field.
    """
    good = {item.id: {run.repetition: run for run in runs.get(item.id, ()) if is_valid(run)} for item in configurations}
    kept = [item for item in in_matrix_order(configurations) if good[item.id]]
    barred = {item.id: barred_reason(runs.get(item.id, ())) for item in configurations if not good[item.id]}
    for item in list(kept):
        if not good.get(reference_of(item)):
            kept.remove(item)
            barred[item.id] = f"its reference {reference_of(item)} has no valid run"
    if not kept:
        return None
    names = [item.id for item in kept]
    repetitions = sorted({number for name in names for number in good[name]})
    scores = [_scores(answers[name], good[name]) for name in names]
    design, fields, clusters, members = _design(scores, answers[names[0]][0].questions, mapping)
    per_question = np.array([[score[key] for key, _ in members] for score in scores])
    sums = np.zeros((len(names), len(clusters)))
    for column, (_, cluster) in enumerate(members):
        sums[:, cluster] += per_question[:, column]
    return CampaignData(
        configurations=tuple(kept),
        reference=np.array([names.index(reference_of(item)) for item in kept], dtype=np.int64),
        log_j=_logs([[_joules(good[name].get(number)) for number in repetitions] for name in names]),
        net_log_j=_logs([[_net(good[name].get(number)) for number in repetitions] for name in names]),
        sums=sums,
        design=design,
        fields=fields,
        clusters=clusters,
        barred=barred,
    )


def _joules(run: RunEvaluation | None) -> float | None:
    return None if run is None else run.epi.joules_per_token


def _net(run: RunEvaluation | None) -> float | None:
    return None if run is None else run.net_joules_per_token


def _logs(values: list[list[float | None]]) -> Floats:
    numbers = np.array([[np.nan if value is None or value <= 0 else value for value in row] for row in values])
    return np.asarray(np.log(numbers))


Key = tuple[str, str]


def _scores(answers: Sequence[Answers], valid: Mapping[int, RunEvaluation]) -> dict[Key, float]:
    sums: dict[Key, list[int]] = {}
    for one in answers:
        if one.repetition in valid:
            for question in one.questions:
                sums.setdefault((question.task, question.question_id), []).append(int(question.correct))
    return {key: sum(marks) / len(marks) for key, marks in sums.items()}


def _design(
    scores: Sequence[Mapping[Key, float]],
    questions: Sequence[MarkedQuestion],
    mapping: Mapping[AccuracyField, AccuracyTask],
) -> tuple[QuestionDesign, tuple[AccuracyField, ...], tuple[str, ...], list[tuple[Key, int]]]:
    weights = {name: weight for name, weight in normalised_weights(mapping).items() if weight > 0}
    common = set(scores[0]).intersection(*scores[1:])
    by_field: dict[AccuracyField, list[tuple[Key, str]]] = {name: [] for name in weights}
    for question in questions:
        key, name = (question.task, question.question_id), field_of(question, mapping)
        if name in by_field and key in common:
            by_field[name].append((key, f"{question.task}/{question.subject}" if question.subject else ""))
    clusters: list[str] = []
    field: list[int] = []
    members: list[tuple[Key, int]] = []
    for number, (name, entries) in enumerate(by_field.items()):
        if not entries:
            raise DataError(f"no question of {name} was answered by every configuration", where="benchmark files")
        grouped = len({subject for _, subject in entries if subject}) >= MIN_SUBJECTS
        index: dict[str, int] = {}
        for key, subject in sorted(entries):
            label = subject if grouped and subject else "/".join(key)
            if label not in index:
                index[label] = len(clusters)
                clusters.append(label)
                field.append(number)
            members.append((key, index[label]))
    sizes = np.bincount([cluster for _, cluster in members], minlength=len(clusters)).astype(np.float64)
    design = QuestionDesign(
        sizes=sizes, field=np.array(field, dtype=np.int64), weights=np.array(list(weights.values()), dtype=np.float64)
    )
    return design, tuple(weights), tuple(clusters), members
