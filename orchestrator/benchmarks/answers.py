"""Turns what lm-eval logged about one document into a `QuestionResult`; the verdict is lm-eval's own."""

from typing import Any

import numpy as np

from orchestrator.benchmarks.cluster_lm import DocCost
from orchestrator.benchmarks.prepared_task import GENERATED, PreparedTask
from orchestrator.benchmarks.records import TaskSpec
from orchestrator.domain.campaign.accuracy_tasks import Metric
from shared.kernel.errors import BugError, ConfigurationError
from shared.kernel.records import QuestionResult


def metric_of(task: PreparedTask, spec: TaskSpec) -> Metric:
    """Return the metric that decides what is correct: the one asked for, else the role's, else acc_norm, else acc.

    MMLU is reported by acc, ARC-Challenge and HellaSwag by acc_norm (log-likelihood per character of the option).

    Raises:
        ConfigurationError: the task does not report the metric.
    """
    reported = set(task.aggregation())
    wanted: tuple[Metric, ...] = ("acc", "acc_norm") if _is_mmlu(spec) else ("acc_norm", "acc")
    if task.OUTPUT_TYPE == GENERATED:
        wanted = ("exact_match", "acc")
    if spec.metric is not None:
        wanted = (spec.metric,)
    for metric in wanted:
        if metric in reported:
            return metric
    raise ConfigurationError(
        f"the task reports {', '.join(sorted(reported))}, not {' or '.join(wanted)}", where=spec.name
    )


def _is_mmlu(spec: TaskSpec) -> bool:
    return spec.role == "mmlu_5shot" or spec.name == "mmlu" or spec.name.startswith("mmlu_")


def answered_question(
    task: PreparedTask,
    sample: dict[str, Any],
    *,
    metric: Metric,
    task_name: str,
    question_id: str,
    subject: str,
    cost: DocCost,
) -> QuestionResult:
    """Return the record of one question from lm-eval's logged sample.

    Raises:
        BugError: our choice and lm-eval's verdict disagree.
    """
    correct = bool(sample[metric])
    known: dict[str, Any] = {
        "task": task_name, "question_id": question_id, "subject": subject, "correct": correct, "metric": metric,
        "ledger": cost.ledger, "start_utc_ns": cost.start_utc_ns, "end_utc_ns": cost.end_utc_ns,
    }  # fmt: skip
    if task.OUTPUT_TYPE == GENERATED:
        text = str(sample["filtered_resps"][0])
        return QuestionResult(target=0, choice=0 if correct else 1, log_likelihoods=(), text=text, **known)
    responses: list[tuple[float, bool]] = sample["filtered_resps"]
    likelihoods = [float(value) for value, _ in responses]
    if task.OUTPUT_TYPE == "loglikelihood":  # option 0: the continuation is what greedy decoding says
        choice, targets = (0 if responses[0][1] else 1), [0]
    else:
        options: list[str] = task.doc_to_choice(sample["doc"])
        likelihoods = likelihoods[: len(options)]  # a mutual-information task appends unconditional ones
        choice = _choose(likelihoods, options, metric)
        targets = _targets(task, sample["doc"], options)
    if correct != (choice in targets):
        raise BugError(
            f"lm-eval says {'right' if correct else 'wrong'} where choice {choice} meets target {targets}",
            where=f"{task_name}/{question_id}",
        )
    return QuestionResult(
        target=choice if correct else targets[0], choice=choice, log_likelihoods=tuple(likelihoods), **known
    )


def _choose(likelihoods: list[float], options: list[str], metric: Metric) -> int:
    """Return the option with the highest log-likelihood, for acc_norm per character, the first of equals (lm-eval)."""
    if metric == "acc":
        return int(np.argmax(likelihoods))
    return int(np.argmax(np.array(likelihoods) / np.array([float(len(option)) for option in options])))


def _targets(task: PreparedTask, doc: dict[str, Any], options: list[str]) -> list[int]:
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    return [_index(one, options) for one in _as_list(gold)]


def _index(gold: str | int, options: list[str]) -> int:
    if isinstance(gold, str):
        return options.index(gold) if gold in options else -1  # lm-eval counts an unknown label as wrong
    return int(gold)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
