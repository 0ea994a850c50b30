"""Accuracy from answered questions: per field, the weighted composite, and its sampling uncertainty."""

from collections.abc import Mapping, Sequence
from sys import intern
from typing import NamedTuple, Protocol

import numpy as np
from pydantic import Field

from orchestrator.domain.campaign.protocol import AccuracyField, AccuracyTask
from shared.kernel.errors import DataError
from shared.kernel.records import Record


class MarkedQuestion(Protocol):
    """What is needed of an answered question: `QuestionResult` has it, and so has the compact `Mark`."""

    @property
    def task(self) -> str:
        """Task name."""

    @property
    def question_id(self) -> str:
        """Unique within the task."""

    @property
    def subject(self) -> str:
        """Subject, empty where the task has none."""

    @property
    def choice(self) -> int:
        """Option chosen."""

    @property
    def correct(self) -> bool:
        """Whether the choice is the target."""


class Mark(NamedTuple):
    """An answered question without its log-likelihoods and times: millions of them fit into memory."""

    task: str
    question_id: str
    subject: str
    choice: int
    correct: bool


def mark_of(question: MarkedQuestion) -> Mark:
    """Return the compact form; equal strings are shared between marks."""
    return Mark(
        intern(question.task), intern(question.question_id), intern(question.subject), question.choice, question.correct
    )


class AccuracyResult(Record):
    """Accuracies as fractions; without questions of a field there is no composite, with the reason."""

    shares: dict[AccuracyField, float] = Field(default_factory=dict, description="share correct of each field")
    composite: float | None = None
    reason: str = ""
    n_questions: dict[AccuracyField, int] = Field(default_factory=dict)
    n_correct: dict[AccuracyField, int] = Field(default_factory=dict)
    weights: dict[AccuracyField, float] = Field(default_factory=dict, description="sum to 1")
    standard_uncertainty: float | None = Field(
        default=None, description="of the composite, from the sampling of questions, 1 sigma"
    )


def field_of(question: MarkedQuestion, mapping: Mapping[AccuracyField, AccuracyTask]) -> AccuracyField | None:
    """Return the accuracy field that a question's task fills."""
    return next((name for name, tasks in mapping.items() if tasks.holds(question.task)), None)


def normalised_weights(mapping: Mapping[AccuracyField, AccuracyTask]) -> dict[AccuracyField, float]:
    """Return the weights of the fields, in their order, scaled to sum 1."""
    total = sum(task.weight for task in mapping.values())
    return {name: task.weight / total for name, task in mapping.items()}


def measure_accuracy(
    questions: Sequence[MarkedQuestion], mapping: Mapping[AccuracyField, AccuracyTask]
) -> AccuracyResult:
    """Return the share of correct answers per field and their weighted mean.

    MMLU is the mean over questions, not over subjects, as lm-eval reports it. The sampling variance of the composite
    is the sum of w^2 a (1 - a) / n over fields.

    Raises:
        DataError: a question was answered twice.
    """
    seen: set[tuple[str, str]] = set()
    fields: dict[str, AccuracyField | None] = {}
    right: dict[AccuracyField, int] = {}
    asked: dict[AccuracyField, int] = {}
    for question in questions:
        key = (question.task, question.question_id)
        if key in seen:
            raise DataError("this question was answered twice", where="/".join(key))
        seen.add(key)
        if question.task not in fields:
            fields[question.task] = field_of(question, mapping)
        name = fields[question.task]
        if name is not None:
            asked[name] = asked.get(name, 0) + 1
            right[name] = right.get(name, 0) + question.correct
    weights = normalised_weights(mapping)
    shares: dict[AccuracyField, float] = {name: right[name] / asked[name] for name in weights if name in asked}
    missing = [name for name, weight in weights.items() if weight > 0 and name not in shares]
    composite: float | None = None
    uncertainty: float | None = None
    if weights and not missing:
        composite = sum(weights[name] * share for name, share in shares.items())
        uncertainty = float(np.sqrt(sum(weights[name] ** 2 * a * (1 - a) / asked[name] for name, a in shares.items())))
    return AccuracyResult(
        shares=shares,
        composite=composite,
        reason=f"no questions for {', '.join(missing)}" if missing else "",
        n_questions=asked,
        n_correct=right,
        weights=weights,
        standard_uncertainty=uncertainty,
    )
