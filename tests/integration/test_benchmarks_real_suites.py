"""MMLU, ARC-Challenge and HellaSwag in their published forms through lm-eval's own prompt templates.

The tree holds no real question. A small set in the published forms is generated here; where EPI_DATA_DIR names the
real files, the same checks run on those too.
"""

import csv
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.benchmarks.records import SuiteSpec, TaskSpec
from orchestrator.benchmarks.suite import BenchmarkSuite
from orchestrator.benchmarks.task_files import TaskFiles
from tests.support.benchmarks_oracle import OracleEngine

REAL = Path(os.environ["EPI_DATA_DIR"]) if os.environ.get("EPI_DATA_DIR") else None


def _subjects() -> list[str]:
    return [str(file.config["dataset_name"]) for file in TaskFiles().find("mmlu")]


def _generate(root: Path) -> Path:
    """Write made-up questions as the authors' files: 57 MMLU subjects, ARC, HellaSwag."""
    for split, count in (("dev", 5), ("test", 3)):
        (root / "mmlu" / split).mkdir(parents=True)
        for subject in _subjects():
            with (root / "mmlu" / split / f"{subject}_{split}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(
                    [f"{subject} {split} {n}?", f"one {n}", "two", "three", "four", "ABCD"[n % 4]] for n in range(count)
                )
    (root / "arc_challenge").mkdir()
    for split, count in (("Dev", 30), ("Test", 12)):
        rows = [
            {
                "id": f"{split}_{n}",
                "question": {
                    "stem": f"{split} question {n}?",
                    "choices": [{"text": f"answer {label} {n}", "label": label} for label in "ABCD"],
                },
                "answerKey": "ABCD"[n % 4],
            }
            for n in range(count)
        ]
        (root / "arc_challenge" / f"ARC-Challenge-{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "hellaswag").mkdir()
    for split, count in (("train", 15), ("val", 12)):
        rows = [
            {
                "ind": n,  # type: ignore[dict-item]
                "activity_label": "Ironing",
                "ctx_a": f"[header] {split} {n} [title] A man stands.",
                "ctx_b": "he",
                "endings": [f"irons {n}.", "sings.", "flies.", "sleeps."],
                "label": n % 4,  # type: ignore[dict-item]
                "source_id": f"{split}~{n}",
            }
            for n in range(count)
        ]
        (root / "hellaswag" / f"hellaswag_{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


@pytest.fixture(scope="module", params=["generated", "real"] if REAL else ["generated"])
def data_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "real":
        assert REAL is not None
        return REAL
    return _generate(tmp_path_factory.mktemp("published"))


def _suite(data_dir: Path, questions: int | None, *names: str) -> BenchmarkSuite:
    roles = {"mmlu": "mmlu_5shot", "arc_challenge": "arc_challenge_25shot", "hellaswag": "hellaswag_10shot"}
    spec = SuiteSpec.from_roles({roles[name]: name for name in names}, questions=questions, seed=5)
    return BenchmarkSuite(spec.model_copy(update={"data_dir": data_dir}))


def test_mmlu_has_57_subjects_each_with_its_own_five_shots(data_dir: Path) -> None:
    engine = OracleEngine()
    result = _suite(data_dir, 114, "mmlu").run(engine)
    assert not result.stands_in
    assert result.n == {"mmlu": 114}
    assert len({question.subject for question in result.questions} - set(_subjects())) == 0
    assert {question.metric for question in result.questions} == {"acc"}
    groups = engine.calls[0].groups
    assert len(groups) == len({question.subject for question in result.questions})
    for group in groups:
        assert group.prefix.startswith("The following are multiple choice questions (with answers) about ")
        assert group.prefix.count("\nAnswer: ") == 5
        for item in group.items:
            assert item.continuations == (" A", " B", " C", " D")
            assert (group.prefix + item.suffix).endswith("\nAnswer:")


def test_every_subject_has_its_share(data_dir: Path) -> None:
    suite = _suite(data_dir, 57 * 3, "mmlu")
    counts = Counter({name: len(indices) for name, indices in suite.chosen_documents().items()})
    available = suite.describe()[0].available
    assert sum(counts.values()) == min(57 * 3, available)
    if available == 57 * 3:
        assert set(counts.values()) == {3}


def test_arc_has_25_pinned_shots_and_is_scored_by_text(data_dir: Path) -> None:
    engine = OracleEngine()
    result = _suite(data_dir, 10, "arc_challenge").run(engine)
    assert (result.tasks[0].shots, result.tasks[0].metric, result.n["arc_challenge"]) == (25, "acc_norm", 10)
    (group,) = engine.calls[0].groups  # one prefix for the whole task
    assert group.prefix.count("Question: ") == group.prefix.count("\nAnswer: ") == 25
    assert all(item.suffix.startswith("Question: ") and item.suffix.endswith("\nAnswer:") for item in group.items)
    assert all(text.startswith(" ") and len(text) > 2 for item in group.items for text in item.continuations)
    assert len({question.question_id for question in result.questions}) == 10


def test_hellaswag_has_10_pinned_shots_and_lm_evals_preprocessing(tmp_path: Path) -> None:
    engine = OracleEngine()
    result = _suite(_generate(tmp_path), None, "hellaswag").run(engine)
    assert (result.tasks[0].shots, result.tasks[0].metric, result.n["hellaswag"]) == (10, "acc_norm", 12)
    (group,) = engine.calls[0].groups
    assert group.prefix.count("Ironing: ") == 10
    assert group.prefix.startswith("Ironing: train 0. A man stands. He irons 0.\n\n")
    assert group.items[3].suffix == "Ironing: val 3. A man stands. He"
    assert group.items[3].continuations == (" irons 3.", " sings.", " flies.", " sleeps.")


def test_own_electrical_engineering_set_is_asked_like_mmlu() -> None:
    engine = OracleEngine()
    spec = SuiteSpec(tasks=(TaskSpec(name="electrical_engineering"), TaskSpec(name="electrical_engineering_text")))
    result = BenchmarkSuite(spec).run(engine)
    assert result.n["electrical_engineering"] == result.n["electrical_engineering_text"] >= 200
    assert [task.metric for task in result.tasks] == ["acc", "acc_norm"]
    letters, texts = engine.calls[0].groups
    assert letters.prefix.count("\nAnswer: ") == texts.prefix.count("\nAnswer: ") == 5
    assert letters.items[0].continuations == (" A", " B", " C", " D")
    assert all(len(item.continuations) == 4 for item in texts.items)
    assert len({question.subject for question in result.questions}) == 11
    assert result.questions[0].question_id == "ee-001"
