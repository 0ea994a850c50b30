"""Rates and expectations for the planner, measured from an earlier campaign's files."""

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from orchestrator.domain.accuracy import field_of
from orchestrator.domain.paired import accuracies
from orchestrator.domain.planner import Rates
from orchestrator.domain.power import Expectation
from orchestrator.domain.records import ACCURACY_FIELDS, AccuracyField, AccuracyTask
from orchestrator.reports.campaign_results import CampaignResults
from orchestrator.reports.result_files import read_run
from shared.errors import DataError
from shared.records import QuestionResult


def measured_rates(data: CampaignResults, base_bytes: int) -> Rates:
    """Return what a run of the campaign cost, medians over runs.

    Score time is shared among the fields in proportion to their questions' own times where those were recorded, else
    evenly by question. Everything outside the score windows, from the first window to the last, counts as fixed.

    Raises:
        DataError: no run holds score and idle windows.
    """
    names: list[AccuracyField] = [name for name in ACCURACY_FIELDS if name in data.campaign.protocol.accuracy]
    score: list[float] = []
    fixed: list[float] = []
    idle: list[float] = []
    active: list[float] = []
    shares: dict[AccuracyField, list[float]] = {name: [] for name in names}
    rate = 10.0
    nodes = 1
    for name, group in data.runs.items():
        for run, own in zip(group, data.inputs[name], strict=True):
            phase, headline = run.phases.get("score"), run.headline
            if phase is None or not run.idle_watts or headline is None or headline.avg_watts_cluster is None:
                continue
            begin = min(w.start_utc_ns for w in own.windows)
            if own.stabilisation is not None:
                begin = min(begin, own.stabilisation.start_utc_ns)
            span = (max(w.end_utc_ns for w in own.windows) - begin) / 1e9
            score.append(phase.duration_seconds)
            fixed.append(span - phase.duration_seconds)
            idle.append(sum(run.idle_watts.values()))
            active.append(headline.avg_watts_cluster)
            nodes = len(run.idle_watts)
            rate = own.instrument.sample_rate_hz or rate
            questions = read_run(data.folder, name, own.repetition).questions
            for field, seconds in _per_question(questions, own.protocol.accuracy, phase.duration_seconds):
                shares[field].append(seconds)
    if not score or any(not values for values in shares.values()):
        raise DataError("no run with score, idle and headline windows to take rates from", where=str(data.folder))
    return Rates(
        seconds_per_question={field: median(values) for field, values in shares.items()},
        fixed_seconds=median(fixed),
        idle_watts=median(idle),
        active_watts=median(active),
        base_bytes=base_bytes,
        nodes=nodes,
        sample_rate_hz=rate,
    )


def measured_expectation(data: CampaignResults, comparisons: int) -> Expectation:
    """Return repetition spread, accuracy and discordance as an earlier campaign found them.

    Discordance is the median over variants of the share of questions answered differently from the reference, at least
    one question; the spread falls back to the default where one repetition shows none.
    """
    found = data.statistics
    default = Expectation(comparisons=comparisons)
    if found.data is None:
        return default
    by_question = {
        name: {(q.task, q.question_id): q.correct for q in group[0].questions} for name, group in data.answers.items()
    }
    shares = []
    for row, item in enumerate(found.data.configurations):
        reference = found.data.configurations[int(found.data.reference[row])]
        if reference.id != item.id:
            one, two = by_question[item.id], by_question[reference.id]
            common = [key for key in one if key in two]
            shares.append(max(sum(one[key] != two[key] for key in common), 1) / max(len(common), 1))
    return Expectation(
        cv=found.spread.cv if found.spread.cv is not None else default.cv,
        accuracy=float(np.median(accuracies(found.data.sums, found.data.design)[0])),
        discordance=median(shares) if shares else default.discordance,
        comparisons=comparisons,
    )


def _per_question(
    questions: Sequence[QuestionResult], mapping: Mapping[AccuracyField, AccuracyTask], duration_s: float
) -> list[tuple[AccuracyField, float]]:
    """Return (field, mean seconds per question); batched questions overlap, so their own times only set proportions."""
    own: dict[AccuracyField, list[float]] = {}
    for question in questions:
        field = field_of(question, mapping)
        if field is not None:
            known = question.start_utc_ns is not None and question.end_utc_ns is not None
            seconds = ((question.end_utc_ns or 0) - (question.start_utc_ns or 0)) / 1e9 if known else 0.0
            own.setdefault(field, []).append(seconds)
    if any(seconds <= 0 for group in own.values() for seconds in group):
        own = {field: [1.0] * len(group) for field, group in own.items()}
    total = sum(sum(group) for group in own.values())
    return [(field, duration_s * sum(group) / total / len(group)) for field, group in own.items()]
