"""Answer sets and what is carried over from them: hand-made cases with known results."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.benchmarks.answer_sets import AnswerSet, AnswerSetKey, AnswerStore
from orchestrator.benchmarks.records import TaskVersion
from orchestrator.benchmarks.sampling import few_strata_indices
from orchestrator.domain.campaign.protocol import AccuracyTask
from orchestrator.domain.run.accuracy import Mark
from orchestrator.domain.run.carried import check_carried, compare_answers
from orchestrator.domain.run.records import ServedBy
from shared.kernel.records import QuestionResult

FIELDS = {"one": AccuracyTask(tasks=("one",), weight=1.0), "two": AccuracyTask(tasks=("two",), weight=3.0)}
TASK = TaskVersion(
    task="one", role=None, stands_in=False, version="1", shots=0, metric="acc", available=3, asked=1,
    prompts_sha256="f" * 64,
)  # fmt: skip
KEY = AnswerSetKey(
    model_sha256="a" * 64, experts_per_token=None, engine="llama.cpp", engine_build="b1", engine_libraries_sha256=None,
    processors=("some CPU",), context_tokens=64, sequences=2, threads=1, questions_per_job=200, tasks=(TASK,),
)  # fmt: skip


def mark(task: str, number: int, choice: int, target: int = 0) -> Mark:
    return Mark(task, str(number), "", choice, choice == target)


def set_of(key: AnswerSetKey) -> AnswerSet:
    question = QuestionResult(
        task="one", question_id="1", target=0, choice=0, correct=True, metric="acc", log_likelihoods=(-0.1, -2.5),
        start_utc_ns=5, end_utc_ns=9,
    )  # fmt: skip
    served = ServedBy(engine="llama.cpp", engine_build="b1", model_sha256="a" * 64, nodes=("scorer1",))
    return AnswerSet(
        key=key, served=served, questions=(question,), versions={"lm_eval": "0"}, start_utc_ns=5, end_utc_ns=9
    )


def test_equal_answers_carry_a_little_uncertainty() -> None:
    answers = [mark(task, n, n % 2) for task in ("one", "two") for n in range(50)]
    carried = compare_answers(answers[10:30], answers, FIELDS)
    assert carried is not None
    assert (carried.asked, carried.agreed, carried.difference) == (20, 20, 0.0)
    assert carried.agreement_interval == (pytest.approx(0.8316, abs=1e-4), 1.0)  # 0.025 ** (1 / 20)
    assert carried.standard_uncertainty == pytest.approx((0.5 / 21 / 20) ** 0.5)
    assert check_carried(carried, 0.02) == []


def test_other_answers_are_told_and_weighted_by_field() -> None:
    answers = [mark(task, n, 0) for task in ("one", "two") for n in range(10)]
    sample = [mark("one", n, 0) for n in range(10)] + [mark("two", n, 1 if n < 4 else 0) for n in range(10)]
    carried = compare_answers(sample, answers, FIELDS)
    assert carried is not None
    assert carried.difference == pytest.approx(-0.4 * 3 / 4)
    variance = (0.25**2 * 0.5 + 0.75**2 * 4.5) / 11 / 10
    assert carried.standard_uncertainty == pytest.approx((carried.difference**2 + variance) ** 0.5)
    finding = check_carried(carried, 0.02)[0]
    assert finding.verdict == "FLAG" and "4 of 20" in finding.reason
    assert check_carried(carried, 0.2) == []


def test_what_the_set_does_not_hold_says_nothing() -> None:
    assert compare_answers([mark("one", 7, 0)], [mark("one", 8, 0)], FIELDS) is None
    assert compare_answers([], [mark("one", 8, 0)], FIELDS) is None


@given(st.lists(st.sampled_from("abcde"), max_size=60), st.integers(1, 70), st.text(max_size=3))
def test_a_sample_comes_from_as_few_strata_as_hold_it(strata: list[str], n: int, seed: str) -> None:
    chosen = few_strata_indices(strata, n, seed)
    assert chosen == sorted(set(chosen)) and len(chosen) == min(n, len(strata))
    assert chosen == few_strata_indices(strata, n, seed)
    used = {strata[index] for index in chosen}
    whole = [one for one in used if strata.count(one) == sum(strata[index] == one for index in chosen)]
    assert len(used) - len(whole) <= 1, "all but the last are taken whole"


@pytest.mark.parametrize(
    "change",
    [
        {"model_sha256": "b" * 64}, {"experts_per_token": 2}, {"engine_build": "b2"}, {"processors": ("other",)},
        {"context_tokens": 65}, {"questions_per_job": 100}, {"engine_libraries_sha256": "c" * 64},
        {"tasks": (TASK.model_copy(update={"prompts_sha256": "0" * 64}),)},
    ],
)  # fmt: skip
def test_what_answers_depend_on_makes_another_set(tmp_path: Path, change: dict[str, object]) -> None:
    store = AnswerStore(tmp_path)
    store.in_the_making(KEY).parent.mkdir(parents=True)
    store.in_the_making(KEY).write_text("half")
    store.keep(set_of(KEY))
    found = store.find(KEY)
    assert found == set_of(KEY) and not store.in_the_making(KEY).exists()
    assert found is not None and found.untimed[0].start_utc_ns is None
    assert store.find(KEY.model_copy(update=change)) is None
    assert store.hashes() == [KEY.sha256()]


def test_a_damaged_or_moved_set_is_kept_aside(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path)
    store.keep(set_of(KEY))
    path = tmp_path / f"{KEY.sha256()}.json"
    other = KEY.model_copy(update={"threads": 2})
    (tmp_path / f"{other.sha256()}.json").write_bytes(path.read_bytes())
    path.write_bytes(path.read_bytes()[:-9])
    for key in (other, KEY):
        assert store.find(key) is None
        assert (tmp_path / f"{key.sha256()}.damaged").exists()
    assert store.hashes() == []
