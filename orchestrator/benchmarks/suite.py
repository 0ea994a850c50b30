"""`BenchmarkSuite`: loads tasks once, then evaluates them again and again through lm-eval and a `score` function.

Blocking and not reentrant: call `run` in a thread (`asyncio.to_thread`), one at a time. Building (reading files,
choosing questions, rendering prompts) happens in the constructor, so that nothing but scoring and the bookkeeping of
answers happens in `run`. Importing this module loads lm-eval (1.5 s).
"""

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.benchmarks.offline import go_offline

go_offline()
import lm_eval.evaluator  # noqa: E402

from orchestrator.benchmarks.answers import answered_question, metric_of  # noqa: E402
from orchestrator.benchmarks.cluster_lm import ClusterLM, Generate, Score  # noqa: E402
from orchestrator.benchmarks.data_dir import DataDir, default_data_dir, docs_sha256  # noqa: E402
from orchestrator.benchmarks.first_use import FirstUse  # noqa: E402
from orchestrator.benchmarks.prepared_task import GENERATED, PreparedTask, doc_hash  # noqa: E402
from orchestrator.benchmarks.records import (  # noqa: E402
    SuiteResult,
    SuiteSpec,
    TaskSpec,
    TaskVersion,
    WindowAnswers,
    library_versions,
)
from orchestrator.benchmarks.sampling import few_strata_indices, stratified_indices  # noqa: E402
from orchestrator.benchmarks.sources import splits_for, trust_of  # noqa: E402
from orchestrator.benchmarks.task_files import TaskFile, TaskFiles  # noqa: E402
from orchestrator.domain.campaign.accuracy_tasks import Metric  # noqa: E402
from orchestrator.domain.run.question_sets import QuestionSet, Trust  # noqa: E402
from shared.kernel.errors import BugError, ConfigurationError, DataError  # noqa: E402
from shared.kernel.records import QuestionResult, Sha256, TokenLedger  # noqa: E402

R = TypeVar("R")


@dataclass(frozen=True)
class _SubTask:
    """One lm-eval task of a benchmark (MMLU has 57), the questions chosen from it, and the id of every question."""

    task: PreparedTask
    name: str
    subject: str
    chosen: list[int]
    ids: dict[int, str]


@dataclass(frozen=True)
class _Benchmark:
    spec: TaskSpec
    metric: Metric
    available: int
    parts: list[_SubTask]
    docs_sha256: Sha256
    trust: Trust


class BenchmarkSuite:
    """The tasks of a `SuiteSpec`, ready to be asked.

    Raises:
        NotFoundError: a task or its question file does not exist.
        DataError: a question file is damaged.
        ConfigurationError: a task cannot be asked here, or has too few examples for its shots.
    """

    def __init__(self, spec: SuiteSpec) -> None:
        self.spec = spec
        files = TaskFiles(spec.include_paths)
        first_use = None if spec.first_use_file is None else FirstUse(spec.first_use_file)
        data = DataDir(spec.data_dir or default_data_dir(), first_use)
        self._benchmarks = [_load(task, files.find(task.name), spec, data) for task in spec.tasks]
        self._parts = {part.name: part for benchmark in self._benchmarks for part in benchmark.parts}
        n_parts = sum(len(benchmark.parts) for benchmark in self._benchmarks)
        if len(self._parts) != n_parts:
            raise ConfigurationError("a task is in the suite twice, alone and in a group", where="benchmark suite")
        for part in self._parts.values():
            part.task.build_all_requests(samples=part.chosen)
        self._versions = self._described()  # every prompt is hashed: once, while nobody waits on the event loop

    @property
    def n_questions(self) -> int:
        """Questions asked in one pass."""
        return sum(len(part.chosen) for part in self._parts.values())

    @property
    def n_jobs(self) -> int:
        """Jobs the engine is asked in one pass: one for all log-likelihoods, one for all free texts."""
        return len({part.task.OUTPUT_TYPE == GENERATED for part in self._parts.values()})

    def chosen_documents(self) -> dict[str, tuple[int, ...]]:
        """Return lm-eval task -> indices of the asked documents in its split: what lm-eval's `samples` wants."""
        return {name: tuple(part.chosen) for name, part in self._parts.items()}

    def describe(self) -> tuple[TaskVersion, ...]:
        """Return what exactly is asked of each task."""
        return self._versions

    def _described(self) -> tuple[TaskVersion, ...]:
        return tuple(
            TaskVersion(
                task=benchmark.spec.name,
                role=benchmark.spec.role,
                stands_in=benchmark.spec.stands_in,
                version=str(benchmark.parts[0].task.VERSION),
                shots=benchmark.parts[0].task.shots,
                metric=benchmark.metric,
                available=benchmark.available,
                asked=sum(len(part.chosen) for part in benchmark.parts),
                prompts_sha256=_combined_hash(benchmark.parts),
            )
            for benchmark in self._benchmarks
        )

    def question_sets(self, tasks: tuple[TaskVersion, ...]) -> tuple[QuestionSet, ...]:
        """Return the questions of each task by their hashes; `tasks` is what `describe` says."""
        return tuple(
            QuestionSet(
                task=benchmark.spec.name, docs_sha256=benchmark.docs_sha256, trust=benchmark.trust,
                prompts_sha256=told.prompts_sha256, shots=told.shots, available=told.available, asked=told.asked,
            )
            for benchmark, told in zip(self._benchmarks, tasks, strict=True)
        )  # fmt: skip

    def run(self, score: Score, generate: Generate | None = None) -> SuiteResult:
        """Ask all questions once and return the answers.

        Args:
            score: Called once with all questions grouped by shared prefix; blocks until the engine has answered.
            generate: Called once with all questions that are answered in free text; needed only for such tasks.

        Raises:
            DataError: the engine's answer has another shape than the question.
            Whatever `score` raises.
        """
        subjects = {
            (part.name, number): _subject(part, part.task.eval_docs[index])
            for part in self._parts.values()
            for number, index in enumerate(part.chosen)
        }
        lm = ClusterLM(score, subjects, generate)
        outcome = lm_eval.evaluator.evaluate(
            lm=lm,
            task_dict={"tasks": {name: part.task for name, part in self._parts.items()}, "groups": {}},
            samples={name: part.chosen for name, part in self._parts.items()},
            log_samples=True,
            bootstrap_iters=0,
        )
        if outcome is None or not lm.spans:
            raise BugError("lm-eval evaluated nothing", where="benchmark suite")
        questions = tuple(self._answers(outcome["samples"], lm))
        asked = Counter(question.task for question in questions)
        right = Counter(question.task for question in questions if question.correct)
        tasks = self.describe()
        accuracy = {task: right[task] / n for task, n in asked.items()}
        return SuiteResult(
            questions=questions,
            accuracy=accuracy,
            accuracy_by_role={task.role: accuracy[task.name] for task in self.spec.tasks if task.role is not None},
            n=dict(asked),
            start_utc_ns=min(span.start_utc_ns for span in lm.spans),
            end_utc_ns=max(span.end_utc_ns for span in lm.spans),
            ledger=sum((span.ledger for span in lm.spans), TokenLedger()),
            tasks=tasks,
            question_sets=self.question_sets(tasks),
            versions=library_versions(),
        )

    def count(self, answers: WindowAnswers) -> SuiteResult:
        """Count answers that were given before to the same questions: the result is that of `run` at the time.

        Raises:
            DataError: they have another shape than the questions: the suite was changed since.
        """

        def given(answer: R | None) -> R:
            if answer is None:
                raise DataError("the kept answers are of another suite", where="benchmark suite")
            return answer

        return self.run(lambda _: given(answers.score), lambda _: given(answers.generate))

    def _answers(self, samples: dict[str, list[dict[str, Any]]], lm: ClusterLM) -> list[QuestionResult]:
        answers: list[QuestionResult] = []
        for benchmark in self._benchmarks:
            for part in benchmark.parts:
                number_of = {index: number for number, index in enumerate(part.chosen)}
                first_filter = samples[part.name][0]["filter"]
                for sample in samples[part.name]:
                    if sample["filter"] != first_filter:
                        continue
                    cost = lm.costs[(part.name, number_of[sample["doc_id"]])]
                    answers.append(
                        answered_question(
                            part.task,
                            sample,
                            metric=benchmark.metric,
                            task_name=benchmark.spec.name,
                            question_id=part.ids[sample["doc_id"]],
                            subject=_subject(part, sample["doc"]),
                            cost=cost,
                        )
                    )
        return answers


def _load(spec: TaskSpec, files: list[TaskFile], suite: SuiteSpec, data: DataDir) -> _Benchmark:
    tasks = [
        PreparedTask(file, splits_for(file, data), shots=spec.shots, pin_shots=spec.pin_shots, seed=suite.seed)
        for file in files
    ]
    names = [file.name for file in files]
    alone = len(tasks) == 1
    subjects = ["" if alone else name.removeprefix(f"{spec.name}_") for name in names]
    where = [(part, index) for part, task in enumerate(tasks) for index in task.askable]
    strata = [(names[part], _stratum(tasks[part].eval_docs[index])) for part, index in where]
    n = spec.questions if spec.questions is not None else suite.questions
    chosen: list[list[int]] = [[] for _ in tasks]
    seed = f"{suite.seed}/{spec.name}"
    positions = stratified_indices(strata, n, seed)
    if suite.sample is not None:
        positions = [positions[at] for at in few_strata_indices([strata[one] for one in positions], suite.sample, seed)]
    for position in positions:
        part, index = where[position]
        chosen[part].append(index)
    ids = _question_ids(tasks, where)
    return _Benchmark(
        spec=spec,
        metric=metric_of(tasks[0], spec),
        available=len(where),
        docs_sha256=docs_sha256([doc for task in tasks for doc in task.source_docs()]),
        trust=trust_of(files[0], data),
        parts=[
            _SubTask(task, name, subject, picked, ids[number])
            for number, (task, name, subject, picked) in enumerate(zip(tasks, names, subjects, chosen, strict=True))
            if picked
        ],
    )


def _question_ids(tasks: list[PreparedTask], where: list[tuple[int, int]]) -> list[dict[int, str]]:
    """Return stable ids: the document's own `id`, else its hash; a repeated one gets #2, #3 ... in file order."""
    ids: list[dict[int, str]] = [{} for _ in tasks]
    seen: Counter[str] = Counter()
    for part, index in where:
        doc = tasks[part].eval_docs[index]
        own = doc.get("id")
        name = str(own) if isinstance(own, str | int) and str(own) else doc_hash(doc)
        seen[name] += 1
        ids[part][index] = name if seen[name] == 1 else f"{name}#{seen[name]}"
    return ids


def _subject(part: _SubTask, doc: dict[str, Any]) -> str:
    return _stratum(doc) or part.subject


def _stratum(doc: dict[str, Any]) -> str:
    return str(doc.get("subject") or doc.get("topic") or "")


def _combined_hash(parts: list[_SubTask]) -> str:
    return hashlib.sha256("".join(part.task.prompts_sha256() for part in parts).encode()).hexdigest()
