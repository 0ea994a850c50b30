"""Records of a benchmark suite: what is asked (`SuiteSpec`) and what came out (`SuiteResult`).

Not here: one question's record and the token ledger (shared.kernel.records), accuracies and their composite
(orchestrator.domain.run.accuracy).
Light to import: nothing here needs lm-eval.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from orchestrator.domain.campaign.protocol import AccuracyField, TaskName
from shared.kernel.records import QuestionResult, Record, TokenLedger

Metric = Literal["acc", "acc_norm", "exact_match"]
ROLE_SHOTS = {"mmlu_5shot": 5, "arc_challenge_25shot": 25, "hellaswag_10shot": 10}
"""Few-shot examples that each role's name promises."""


def is_stand_in(task: str) -> bool:
    """Tell whether a task is one of the demo's, made in a benchmark's style."""
    return task.startswith("demo_")


class TaskSpec(Record):
    """One benchmark: an lm-eval task or group by name, and how it is asked."""

    name: TaskName = Field(description="lm-eval task or group, ours or its own")
    role: AccuracyField | None = Field(default=None, description="accuracy field it fills; null: extra benchmark")
    questions: int | None = Field(default=None, ge=1, description="subset size; null asks the suite's number")
    shots: int | None = Field(default=None, ge=0, description="few-shot examples; null keeps the task's own number")
    pin_shots: bool = Field(default=True, description="the same first examples for every question of a (sub)task")
    metric: Metric | None = Field(default=None, description="null: the role's, else acc_norm, acc, exact_match")

    @property
    def stands_in(self) -> bool:
        """True if the task only stands in for its role: the demo's tasks are of the same style, not the benchmark."""
        return self.role is not None and is_stand_in(self.name)


class SuiteSpec(Record):
    """The suite: tasks, subset size, seed, and where their files are."""

    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    questions: int | None = Field(default=None, ge=1, description="per task, stratified and seeded; null asks all")
    seed: int = 1
    include_paths: tuple[Path, ...] = Field(default=(), description="directories with task YAML files of our own")
    data_dir: Path | None = Field(default=None, description="published benchmarks; null: $EPI_DATA_DIR or the user's")

    @model_validator(mode="after")
    def _names_and_roles_are_unique(self) -> Self:
        names = [task.name for task in self.tasks]
        roles = [task.role for task in self.tasks if task.role is not None]
        for values in (names, roles):
            if twice := sorted(value for value, count in Counter(values).items() if count > 1):
                raise ValueError(f"{twice[0]!r} is given twice")
        return self

    @classmethod
    def from_roles(
        cls, roles: Mapping[str, str], *, questions: int | None, seed: int, include_paths: tuple[Path, ...] = ()
    ) -> Self:
        """Make a suite from role -> task name. A stand-in keeps its own shots, others get the role's.

        Args:
            roles: For example {"mmlu_5shot": "mmlu", "arc_challenge_25shot": "arc_challenge"}.
            questions: Subset size per task; None asks all.
            seed: Of the subset.
            include_paths: Directories with task YAML files of our own.
        """
        tasks = tuple(
            TaskSpec.model_validate(
                {"name": name, "role": role, "shots": None if is_stand_in(name) else ROLE_SHOTS.get(role)}
            )
            for role, name in roles.items()
        )
        return cls(tasks=tasks, questions=questions, seed=seed, include_paths=include_paths)


class TaskVersion(Record):
    """What exactly was asked of one task, so that two results can be compared."""

    task: str
    role: AccuracyField | None
    stands_in: bool = Field(description="a demo task of the same style in place of the benchmark")
    version: str = Field(description="version in the task's YAML")
    shots: int
    metric: Metric
    available: int = Field(description="questions in the task")
    asked: int
    prompts_sha256: str = Field(description="hash of every prompt and option in the order asked")


class SuiteResult(Record):
    """One pass of the suite: per-question records in the order asked, accuracies, the window and its ledger."""

    questions: tuple[QuestionResult, ...]
    accuracy: dict[str, float] = Field(description="task name -> share correct by its metric")
    accuracy_by_role: dict[AccuracyField, float] = Field(description="only roles that a task plays")
    n: dict[str, int]
    start_utc_ns: int
    end_utc_ns: int
    ledger: TokenLedger
    tasks: tuple[TaskVersion, ...]
    versions: dict[str, str] = Field(description="library -> version")

    @property
    def stands_in(self) -> bool:
        """True if any role is filled by a stand-in: the accuracies are then not those of the named benchmarks."""
        return any(task.stands_in for task in self.tasks)
