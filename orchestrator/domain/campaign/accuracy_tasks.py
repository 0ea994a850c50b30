"""What a campaign's intelligence is: any number of tasks with weights, each filling one accuracy field.

The published fields are named after benchmarks and their shots; only those benchmarks fill them, or a task that is
declared to stand in for one. Not here: how tasks are asked (`orchestrator.benchmarks`).
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from orchestrator.domain.campaign.protocol import PUBLISHED_FIELDS, AccuracyField, AccuracyPlace, AccuracyTask, TaskName
from shared.kernel.numbers import Seed, Weight
from shared.kernel.records import Record

PUBLISHED: Final[Mapping[AccuracyField, tuple[str, int]]] = {
    "mmlu_5shot": ("mmlu", 5),
    "arc_challenge_25shot": ("arc_challenge", 25),
    "hellaswag_10shot": ("hellaswag", 10),
}
"""Published field -> the benchmark and the shots that it is named after."""


Metric = Literal["acc", "acc_norm", "exact_match"]


def is_demo_task(task: str) -> bool:
    """Tell whether a task is one of the demo's, which specs of version 1 use without declaring them."""
    return task.startswith("demo_")


class ScoredTask(Record):
    """One task of the composite accuracy."""

    task: TaskName = Field(description="an lm-eval task or group, or a YAML in one of the lab's task_dirs")
    shots: int | None = Field(default=None, ge=0, le=100, description="few-shot examples; null keeps the task's own")
    weight: Weight = Field(default=1.0, description="in the composite; the weights are scaled to sum 1")
    questions: int | None = Field(
        default=None, ge=1, le=10_000_000, description="stratified and seeded; null: the spec's number"
    )
    accuracy_field: AccuracyField | None = Field(default=None, description="null: named after task and shots")
    metric: Metric | None = Field(default=None, description="null: as the benchmark is reported")
    stands_in: bool = Field(default=False, description="fills a published field without being that benchmark")

    @property
    def name(self) -> AccuracyField:
        """Return the accuracy field that the task fills."""
        if self.accuracy_field is not None:
            return self.accuracy_field
        return self.task if self.shots is None else f"{self.task}_{self.shots}shot"

    @model_validator(mode="after")
    def _fills_its_own_field(self) -> Self:
        asked = PUBLISHED.get(self.name)
        if asked is not None and asked != (self.task, self.shots) and not self.stands_in:
            raise ValueError(
                f"{self.name} is published for {asked[0]} with {asked[1]} shots, not for {self.task} with"
                f" {'its own' if self.shots is None else self.shots}: say stands_in = true, or another accuracy_field"
            )
        return self


class AccuracySpec(Record):
    """The composite accuracy: which tasks, how many questions of each, and their weights."""

    tasks: tuple[ScoredTask, ...] = Field(min_length=1, max_length=64, description="any number of tasks")
    questions: int | None = Field(
        default=None, ge=1, le=10_000_000, description="per task, stratified and seeded; null asks all"
    )
    seed: Seed = Field(default=1, description="of the choice of questions")
    where: AccuracyPlace | None = Field(
        default=None, description="cluster, once or scorers (docs/specs.md); null: scorers where the lab has any"
    )
    cluster_sample: int = Field(
        default=100,
        ge=0,
        le=10_000_000,
        description="questions of each task that the cluster is asked where others score",
    )
    questions_per_job: int = Field(
        default=200, ge=1, le=10_000,
        description="what a lost machine costs, where the questions are answered once or by scorers",
    )  # fmt: skip

    @model_validator(mode="after")
    def _tasks_are_distinct(self) -> Self:
        for what, values in (
            ("task", [task.task for task in self.tasks]),
            ("accuracy_field", [task.name for task in self.tasks]),
        ):
            if twice := [value for value, count in Counter(values).items() if count > 1]:
                raise ValueError(f"{what} {twice[0]!r} is given twice")
        if sum(task.weight for task in self.tasks) <= 0:
            raise ValueError("the weights of the tasks are all zero")
        return self

    def asked(self, task: ScoredTask) -> int | None:
        """Return how many questions of a task are asked; None: all."""
        return task.questions or self.questions

    @property
    def fields(self) -> dict[AccuracyField, AccuracyTask]:
        """Return field -> the task that fills it and its weight, in the spec's order."""
        return {task.name: AccuracyTask(tasks=(task.task,), weight=task.weight) for task in self.tasks}

    @property
    def weights(self) -> dict[AccuracyField, float]:
        """Return the weights of the fields, scaled to sum 1."""
        total = sum(task.weight for task in self.tasks)
        return {task.name: task.weight / total for task in self.tasks}


class TasksSpec(Record):
    """Which task fills which published field (specs of version 1), and how many questions of each are asked."""

    mmlu_5shot: TaskName = Field(description="the task that fills the field")
    arc_challenge_25shot: TaskName = Field(description="the task that fills the field")
    hellaswag_10shot: TaskName = Field(description="the task that fills the field")
    weights: tuple[Weight, Weight, Weight] = Field(default=(1 / 3, 1 / 3, 1 / 3), description="summing to 1")
    questions: int | None = Field(
        default=None, ge=1, le=10_000_000, description="per task, stratified and seeded; null asks all"
    )
    seed: Seed = Field(default=1, description="of the choice of questions")

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> Self:
        if any(weight < 0 for weight in self.weights) or abs(sum(self.weights) - 1) > 1e-9:
            raise ValueError("the three weights must be >= 0 and sum to 1")
        return self

    def as_accuracy(self) -> AccuracySpec:
        """Return the same as a list of tasks; a demo task keeps its own shots, others get the field's."""
        names = (self.mmlu_5shot, self.arc_challenge_25shot, self.hellaswag_10shot)
        return AccuracySpec(
            tasks=tuple(
                ScoredTask(
                    task=name, shots=None if is_demo_task(name) else PUBLISHED[field][1], weight=weight,
                    accuracy_field=field, stands_in=name != PUBLISHED[field][0],
                )
                for field, name, weight in zip(PUBLISHED_FIELDS, names, self.weights, strict=True)
            ),
            questions=self.questions,
            seed=self.seed,
            where="cluster",
        )  # fmt: skip
