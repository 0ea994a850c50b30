"""Records of a benchmark suite: what is asked (`SuiteSpec`) and what came out (`SuiteResult`).

Not here: one question's record and the token ledger (shared.kernel.records), accuracies and their composite
(orchestrator.domain.run.accuracy).
Light to import: nothing here needs lm-eval.
"""

import importlib.metadata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from orchestrator.domain.campaign.accuracy_tasks import PUBLISHED, AccuracySpec, Metric
from orchestrator.domain.campaign.protocol import AccuracyField, TaskName
from orchestrator.domain.run.question_sets import QuestionSet
from shared.kernel.records import QuestionResult, Record, TokenLedger
from shared.wire.node_jobs.workloads import GenerateResult, ScoreResult


class TaskSpec(Record):
    """One benchmark: an lm-eval task or group by name, and how it is asked."""

    name: TaskName = Field(description="lm-eval task or group, ours or its own")
    role: AccuracyField | None = Field(default=None, description="accuracy field it fills; null: extra benchmark")
    questions: int | None = Field(default=None, ge=1, description="subset size; null asks the suite's number")
    shots: int | None = Field(default=None, ge=0, description="few-shot examples; null keeps the task's own number")
    pin_shots: bool = Field(default=True, description="the same first examples for every question of a (sub)task")
    metric: Metric | None = Field(default=None, description="null: the role's, else acc_norm, acc, exact_match")

    stands_in: bool = Field(default=False, description="fills its role without being the benchmark it is named after")


class SuiteSpec(Record):
    """The suite: tasks, subset size, seed, and where their files are."""

    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    questions: int | None = Field(default=None, ge=1, description="per task, stratified and seeded; null asks all")
    sample: int | None = Field(
        default=None, ge=1, description="of the chosen questions only this many a task, from few subjects"
    )
    seed: int = 1
    include_paths: tuple[Path, ...] = Field(default=(), description="directories with task YAML files of our own")
    data_dir: Path | None = Field(default=None, description="published benchmarks; null: $EPI_DATA_DIR or the user's")
    first_use_file: Path | None = Field(
        default=None, description="where the hashes of published questions are remembered; null: nowhere"
    )

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
        """Make a suite from published field -> task; one that is not the field's own benchmark stands in for it.

        Args:
            roles: For example {"mmlu_5shot": "mmlu", "arc_challenge_25shot": "arc_challenge"}.
            questions: Subset size per task; None asks all.
            seed: Of the subset.
            include_paths: Directories with task YAML files of our own.
        """
        tasks = tuple(
            TaskSpec(name=name, role=role, shots=PUBLISHED[role][1] if name == PUBLISHED[role][0] else None,
                     stands_in=name != PUBLISHED[role][0])
            for role, name in roles.items()
        )  # fmt: skip
        return cls(tasks=tasks, questions=questions, seed=seed, include_paths=include_paths)

    @classmethod
    def of(cls, intelligence: AccuracySpec, *, include_paths: tuple[Path, ...] = ()) -> Self:
        """Return the suite that a campaign's tasks make."""
        tasks = tuple(
            TaskSpec(
                name=task.task, role=task.name, questions=task.questions, shots=task.shots, metric=task.metric,
                stands_in=task.stands_in,
            )
            for task in intelligence.tasks
        )  # fmt: skip
        return cls(
            tasks=tasks, questions=intelligence.questions, seed=intelligence.seed, include_paths=include_paths
        )  # fmt: skip


def library_versions() -> dict[str, str]:
    """Return library -> version, of those that decide how answers are counted; nothing is imported for it."""
    return {"lm_eval": importlib.metadata.version("lm_eval")}


class TaskVersion(Record):
    """What exactly was asked of one task, so that two results can be compared."""

    task: str
    role: AccuracyField | None
    stands_in: bool = Field(description="not the benchmark its role is named after")
    version: str = Field(description="version in the task's YAML")
    shots: int
    metric: Metric
    available: int = Field(description="questions in the task")
    asked: int
    prompts_sha256: str = Field(description="hash of every prompt and option in the order asked")


class WindowAnswers(Record):
    """What the nodes answered in one pass of the suite: all that is needed to count it, then or later."""

    score: ScoreResult | None = None
    generate: GenerateResult | None = None

    @property
    def spans(self) -> tuple[ScoreResult | GenerateResult, ...]:
        """The jobs that were done."""
        return tuple(one for one in (self.score, self.generate) if one is not None)

    @property
    def start_utc_ns(self) -> int:
        """When the first job began, in the node's time."""
        return min(one.start_utc_ns for one in self.spans)

    @property
    def end_utc_ns(self) -> int:
        """When the last job ended, in the node's time."""
        return max(one.end_utc_ns for one in self.spans)

    @property
    def ledger(self) -> TokenLedger:
        """The tokens of all jobs."""
        return sum((one.ledger for one in self.spans), TokenLedger())


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
    question_sets: tuple[QuestionSet, ...] = ()
    versions: dict[str, str] = Field(description="library -> version")

    @property
    def stands_in(self) -> bool:
        """True if any role is filled by a stand-in: the accuracies are then not those of the named benchmarks."""
        return any(task.stands_in for task in self.tasks)
