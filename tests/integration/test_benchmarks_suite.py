"""The suite through lm-eval: same prompts and verdicts as stock lm-eval, subsets, records, clear errors."""

from pathlib import Path
from typing import Any

import lm_eval.evaluator
import lm_eval.tasks
import pytest
from lm_eval.api.model import LM

from orchestrator.benchmarks.records import SuiteSpec, TaskSpec
from orchestrator.benchmarks.suite import BenchmarkSuite
from shared.kernel.errors import ConfigurationError, DataError, NotFoundError
from tests.support.benchmarks_oracle import OracleEngine, oracle, write_task


class _PlainLM(LM):  # type: ignore[misc]
    """What lm-eval would do without us: every request by itself."""

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return [oracle(*request.args) for request in requests]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        raise AssertionError

    def generate_until(self, requests: list[Any]) -> list[str]:
        raise AssertionError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_task(tmp_path, "demo_mmlu_style_3shot", metrics=("acc",))
    write_task(tmp_path, "demo_arc_style_2shot", shots=2)
    return tmp_path


def _spec(folder: Path, **more: Any) -> SuiteSpec:
    roles = {"mmlu_5shot": "demo_mmlu_style_3shot", "arc_challenge_25shot": "demo_arc_style_2shot"}
    return SuiteSpec.from_roles(roles, seed=3, include_paths=(folder,), **{"questions": None, **more})


def test_prompts_and_verdicts_equal_stock_lm_eval(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = BenchmarkSuite(_spec(folder)).run(OracleEngine())
    monkeypatch.chdir(folder)  # stock lm-eval takes data_files from the working directory
    manager = lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False)
    tasks = manager.load(["demo_mmlu_style_3shot", "demo_arc_style_2shot"])
    stock = lm_eval.evaluator.evaluate(lm=_PlainLM(), task_dict=tasks, bootstrap_iters=0)
    assert stock is not None
    for task, metric in (("demo_mmlu_style_3shot", "acc"), ("demo_arc_style_2shot", "acc_norm")):
        ours = [question for question in result.questions if question.task == task]
        theirs = stock["samples"][task]
        assert {question.metric for question in ours} == {metric}
        assert [question.correct for question in ours] == [bool(sample[metric]) for sample in theirs]
        assert [list(question.log_likelihoods) for question in ours] == [
            [value for value, _ in sample["filtered_resps"]] for sample in theirs
        ]
        assert result.accuracy[task] == pytest.approx(stock["results"][task][f"{metric},none"])


def test_questions_are_named_by_their_hash_whatever_is_asked_of_them(folder: Path) -> None:
    whole, some = BenchmarkSuite(_spec(folder)), BenchmarkSuite(_spec(folder, questions=6))
    first, part = (suite.question_sets(suite.describe()) for suite in (whole, some))
    assert [one.task for one in first] == ["demo_mmlu_style_3shot", "demo_arc_style_2shot"]
    assert {one.trust for one in first} == {"own"} and [one.asked for one in part] == [6, 6]
    assert [one.docs_sha256 for one in part] == [one.docs_sha256 for one in first]
    assert [one.prompts_sha256 for one in part] != [one.prompts_sha256 for one in first]
    assert whole.run(OracleEngine()).question_sets == first
    shots = folder / "demo_arc_style_2shot_dev.jsonl"
    shots.write_text(shots.read_text().replace("What is 5 plus 5", "What is 5 and 5"))  # no question, and no shot used
    again = BenchmarkSuite(_spec(folder))
    (mmlu, arc) = again.question_sets(again.describe())
    assert mmlu == first[0] and arc.docs_sha256 != first[1].docs_sha256
    assert arc.prompts_sha256 == first[1].prompts_sha256


def test_subset_is_stratified_seeded_and_the_same_in_every_run(folder: Path) -> None:
    engine = OracleEngine()
    suite = BenchmarkSuite(_spec(folder, questions=10))
    first, second = suite.run(engine), suite.run(engine)
    assert first == second
    assert len(engine.calls) == 2  # one score job a run
    assert first.n == {"demo_mmlu_style_3shot": 10, "demo_arc_style_2shot": 10}
    subjects = [question.subject for question in first.questions if question.task == "demo_arc_style_2shot"]
    assert sorted(subjects) == sorted(f"subject {i}" for i in range(5) for _ in range(2))
    assert BenchmarkSuite(_spec(folder, questions=10)).run(engine).questions == first.questions
    everything = {q.question_id: q for q in BenchmarkSuite(_spec(folder)).run(engine).questions}
    for question in first.questions:
        assert question.log_likelihoods == everything[question.question_id].log_likelihoods
        assert question.correct == everything[question.question_id].correct


def test_records_carry_window_ledger_and_what_was_asked(folder: Path) -> None:
    engine = OracleEngine()
    suite = BenchmarkSuite(_spec(folder, questions=10))
    result = suite.run(engine)
    assert suite.n_questions == len(result.questions) == 20
    assert (result.start_utc_ns, result.end_utc_ns) == (1_000, 1_200)
    ledgers = [question.ledger for question in result.questions]
    assert sum(ledger.prompt for ledger in ledgers) == result.ledger.prompt
    assert sum(ledger.scored for ledger in ledgers) == result.ledger.scored == 80
    assert result.stands_in
    assert result.accuracy_by_role["mmlu_5shot"] == result.accuracy["demo_mmlu_style_3shot"]
    arc = result.tasks[1]
    assert (arc.task, arc.role) == ("demo_arc_style_2shot", "arc_challenge_25shot")
    assert (arc.shots, arc.metric) == (2, "acc_norm")
    assert (arc.version, arc.available, arc.asked) == ("1.5", 40, 10)
    assert result.versions["lm_eval"]


def test_shots_are_evaluated_once_a_task(folder: Path) -> None:
    engine = OracleEngine()
    BenchmarkSuite(_spec(folder)).run(engine)
    assert [len(group.items) for group in engine.calls[0].groups] == [40, 40]
    assert [group.prefix.count("Answer:") for group in engine.calls[0].groups] == [3, 2]


def test_a_shot_is_never_asked(folder: Path) -> None:
    """Where shots come from the asked split itself, the first n are shots only."""
    yaml = (folder / "demo_arc_style_2shot.yaml").read_text(encoding="utf-8")
    (folder / "own.yaml").write_text(
        yaml.replace("task: demo_arc_style_2shot", "task: own").replace("fewshot_split: dev", "fewshot_split: test"),
        encoding="utf-8",
    )
    suite = BenchmarkSuite(SuiteSpec(tasks=(TaskSpec(name="own"),), include_paths=(folder,)))
    ids = [question.question_id for question in suite.run(OracleEngine()).questions]
    assert ids == [f"demo_arc_style_2shot-test-{i}" for i in range(2, 40)]


def test_shots_and_metric_can_be_chosen(folder: Path) -> None:
    task = TaskSpec(name="demo_arc_style_2shot", shots=0, metric="acc")
    engine = OracleEngine()
    result = BenchmarkSuite(SuiteSpec(tasks=(task,), include_paths=(folder,))).run(engine)
    assert result.tasks[0].shots == 0
    assert {question.metric for question in result.questions} == {"acc"}
    assert engine.calls[0].groups[0].prefix == ""
    assert result.accuracy_by_role == {}


def test_mmlu_is_reported_by_acc_the_others_by_acc_norm(folder: Path) -> None:
    write_task(folder, "both")
    for role, metric in (("mmlu_5shot", "acc"), ("hellaswag_10shot", "acc_norm"), (None, "acc_norm")):
        task = TaskSpec.model_validate({"name": "both", "role": role})
        assert BenchmarkSuite(SuiteSpec(tasks=(task,), include_paths=(folder,))).describe()[0].metric == metric


def test_real_benchmarks_get_the_shots_of_their_role() -> None:
    roles = {"mmlu_5shot": "mmlu", "arc_challenge_25shot": "arc_challenge", "hellaswag_10shot": "demo_hellaswag"}
    spec = SuiteSpec.from_roles(roles, questions=1, seed=1)
    assert [task.shots for task in spec.tasks] == [5, 25, None]
    assert [task.stands_in for task in spec.tasks] == [False, False, True]


def test_what_is_wrong_is_named(folder: Path) -> None:
    def load(name: str, **more: Any) -> None:
        BenchmarkSuite(SuiteSpec(tasks=(TaskSpec(name=name, **more),), include_paths=(folder,)))

    with pytest.raises(ConfigurationError, match="7 shots"):
        load("demo_arc_style_2shot", shots=7)
    with pytest.raises(ConfigurationError, match="acc_norm"):
        load("demo_mmlu_style_3shot", metric="acc_norm")
    data = folder / "demo_arc_style_2shot_test.jsonl"
    data.write_text('{"question": "a"}\n{"question": \n', encoding="utf-8")
    with pytest.raises(DataError, match=r"_test\.jsonl:2"):
        load("demo_arc_style_2shot")
    data.unlink()
    with pytest.raises(NotFoundError, match="does not exist"):
        load("demo_arc_style_2shot")
    with pytest.raises(NotFoundError, match="no such directory"):
        BenchmarkSuite(SuiteSpec(tasks=(TaskSpec(name="x"),), include_paths=(folder / "absent",)))
