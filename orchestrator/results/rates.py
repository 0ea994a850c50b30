"""Rates and expectations for the planner, measured from an earlier campaign's files."""

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from orchestrator.domain.analysis.paired import accuracies
from orchestrator.domain.campaign.design_power import Expectation
from orchestrator.domain.campaign.dry_run import Pace, SpecPlan, spec_plan
from orchestrator.domain.campaign.protocol import AccuracyField, AccuracyTask
from orchestrator.domain.campaign.rates import Rates
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.domain.run.accuracy import field_of
from orchestrator.domain.run.records import RunInput
from orchestrator.results.files import read_run
from orchestrator.results.read_model import CampaignResults
from shared.kernel.errors import DataError
from shared.kernel.records import QuestionResult, WindowLabel


def measured_rates(data: CampaignResults, base_bytes: int) -> Rates:
    """Return what a run of the campaign cost, medians over runs.

    Score time is shared among the fields in proportion to their questions' own times where those were recorded, else
    evenly by question. Everything outside the score windows, from the first window to the last, counts as fixed.

    Raises:
        DataError: no run holds score and idle windows.
    """
    names: list[AccuracyField] = list(data.campaign.protocol.accuracy)
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
            if own.steady_state is not None:
                begin = min(begin, own.steady_state.start_utc_ns)
            span = (max(w.end_utc_ns for w in own.windows) - begin) / 1e9
            score.append(phase.duration_seconds)
            fixed.append(span - phase.duration_seconds)
            idle.append(sum(run.idle_watts.values()))
            active.append(headline.avg_watts_cluster)
            nodes = len(run.idle_watts)
            rate = own.instrument.sample_rate_hz or rate
            files = read_run(data.folder, own.reference)
            questions = files.questions if own.protocol.accuracy_where == "cluster" else files.sample
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


def measured_plan(spec: CampaignSpec, data: CampaignResults, base_bytes: int) -> SpecPlan:
    """Plan a spec with the rates, the pace and the spread of an earlier campaign.

    Raises:
        DataError: no run holds what rates are taken from.
        ConfigurationError: a configuration of the spec does not exist.
    """
    return spec_plan(
        spec, rates=measured_rates(data, base_bytes), pace=measured_pace(data),
        expected=measured_expectation(data, comparisons=1), rates_from=data.campaign.campaign_id,
    )  # fmt: skip


def measured_pace(data: CampaignResults) -> Pace | None:
    """Return how quickly the campaign's windows were done, medians over runs; None without prefill and decode."""
    runs = [run for group in data.inputs.values() for run in group]
    prefill, decode = _tokens_per_s(runs, "prefill"), _tokens_per_s(runs, "decode")
    if not prefill or not decode or data.utilisation is None:
        return None
    lost_s = data.utilisation.span_s * (1 - data.utilisation.share)
    return Pace(prefill_tokens_per_s=median(prefill), decode_tokens_per_s=median(decode), between_s=lost_s / len(runs))


def _tokens_per_s(runs: Sequence[RunInput], label: WindowLabel) -> list[float]:
    return [
        (window.ledger.prompt if label == "prefill" else window.ledger.generated)
        / ((window.end_utc_ns - window.start_utc_ns) / 1e9)
        for run in runs
        for window in run.windows
        if window.label == label
    ]


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
