"""Where the questions are answered changes what it costs, never what is answered: cluster, once, scorers."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.benchmarks.answer_sets import AnswerStore
from orchestrator.domain.campaign.protocol import AccuracyPlace
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.local import control
from orchestrator.reports.answers_table import answers_table
from orchestrator.results.files import RunFiles, read_run
from orchestrator.results.read_model import load_results
from orchestrator.results.recompute import recompute_campaign
from tests.support.lab import TestLab, new_lab, process_of, scored_spec, small_demo, start_campaign, wait_for_end

PLACES: tuple[AccuracyPlace, ...] = ("cluster", "once", "scorers")


@pytest.fixture(scope="module")
def lab() -> Iterator[TestLab]:
    """A lab with a scorer; it shares the machine with the nodes and so works between the windows."""
    with new_lab() as lab:
        try:
            lab.start(small_demo(lab.home, scorers=("scorer1",)))
            yield lab
        finally:
            lab.stop()


@pytest.fixture(scope="module")
def measured(lab: TestLab) -> dict[str, dict[str, RunFiles]]:
    """The same two configurations, twice each, scored at each place: campaign -> run -> files."""
    for where in PLACES:
        start_campaign(lab, scored_spec(where, "baseline,drop2_all", where, repetitions=2))
        status = wait_for_end(lab, where)
        assert status["state"] == "finished", status["reason"]
    runs = [RunReference.of(configuration=name, repetition=n) for name in ("baseline", "drop2_all") for n in (1, 2)]
    return {where: {run.format(): read_run(lab.out / where, run) for run in runs} for where in PLACES}


def test_all_ways_answer_the_same(measured: dict[str, dict[str, RunFiles]]) -> None:
    for run, literal in measured["cluster"].items():
        assert len(literal.questions) == 24
        for where in ("once", "scorers"):
            files = measured[where][run]
            assert [q.question_id for q in files.questions] == [q.question_id for q in literal.questions]
            assert [q.log_likelihoods for q in files.questions] == [q.log_likelihoods for q in literal.questions]
            assert files.epi.evaluation.accuracy == literal.epi.evaluation.accuracy
            assert files.epi.evaluation.epi.value is not None
            assert files.run.answers is not None


def test_the_cluster_is_asked_a_sample_in_the_first_repetition_only(measured: dict[str, dict[str, RunFiles]]) -> None:
    for where in ("once", "scorers"):
        for run, files in measured[where].items():
            evaluation = files.epi.evaluation
            windows = {window.label for window in files.run.windows}
            if run.endswith("rep-1"):
                assert len(files.sample) == 9 and "score" in windows
                assert evaluation.carried is not None and evaluation.carried.agreed == evaluation.carried.asked == 9
                assert evaluation.joules_per_question is not None
                assert evaluation.uncertainty.carried is not None
            else:
                assert not files.sample and "score" not in windows
                assert evaluation.joules_per_question is None
            assert not [one for one in evaluation.validity.findings if one.rule == "complete"]


def test_a_set_serves_all_who_ask_the_same(lab: TestLab, measured: dict[str, dict[str, RunFiles]]) -> None:
    store = AnswerStore(lab.home / "state" / "orchestrator" / "answers")
    known = store.hashes()
    assert len(known) == 2, "the machine is the same, so scorers took what the cluster had answered once"
    assert {files.run.answers.answer_set_sha256 for files in measured["scorers"].values() if files.run.answers} == set(
        known
    )


def test_late_answers_are_in_the_files_to_the_byte(lab: TestLab, measured: dict[str, dict[str, RunFiles]]) -> None:
    for where in PLACES:
        for recomputed in recompute_campaign(Path(lab.out) / where):
            assert recomputed.differences == ()


def test_scorers_answer_what_nobody_knows(lab: TestLab, measured: dict[str, dict[str, RunFiles]]) -> None:
    """Another number of questions is another set: here the scorer asks, while the nodes measure."""
    spec = scored_spec("others", "baseline,drop2_all", "scorers", questions=6)
    start_campaign(lab, spec)
    status = wait_for_end(lab, spec.id)
    assert status["state"] == "finished", status["reason"]
    for name in ("baseline", "drop2_all"):
        files = read_run(lab.out / spec.id, RunReference.of(configuration=name, repetition=1))
        assert len(files.questions) == 18
        assert files.run.answers is not None and files.run.answers.served.nodes == ("scorer1",)
        literal = {q.question_id: q for q in measured["cluster"][f"{name}/rep-1"].questions}
        for question in files.questions:
            if question.question_id in literal:
                assert question.choice == literal[question.question_id].choice


def test_a_killed_scorer_and_orchestrator_cost_one_job_at_most(
    lab: TestLab, measured: dict[str, dict[str, RunFiles]]
) -> None:
    """Jobs of two questions; both are killed when a few are answered, and what is kept is not asked again."""
    spec = scored_spec("killed", "baseline", "scorers", questions=12, questions_per_job=2)
    making = lab.home / "state" / "orchestrator" / "answers" / "in-the-making"
    start_campaign(lab, spec)
    for process, lines in (("scorer1", 3), ("orchestrator", 7)):
        kept = _wait_for_lines(making, lines)
        os.kill(process_of(lab, process), signal.SIGKILL)
        control.wait_ready(lab, lab.home / "demo.toml", lambda _: None)
        found = next(making.iterdir(), None)
        assert found is None or found.read_bytes().startswith(kept), "nothing that was answered is lost"
    status = wait_for_end(lab, spec.id)
    assert status["state"] == "finished", status["reason"]
    files = read_run(lab.out / spec.id, RunReference.of(configuration="baseline", repetition=1))
    assert len(files.questions) == 36 and files.epi.evaluation.epi.value is not None
    literal = {q.question_id: q for q in measured["cluster"]["baseline/rep-1"].questions}
    again = {q.question_id: q for q in files.questions}
    assert literal.keys() <= again.keys()
    assert all(again[name].choice == question.choice for name, question in literal.items())


def _wait_for_lines(folder: Path, lines: int, timeout_s: float = 120.0) -> bytes:
    """Return the content of the only file of kept answers when it has so many lines."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for path in folder.glob("*.jsonl"):
            content = path.read_bytes()
            if content.count(b"\n") >= lines:
                return content[: content.rfind(b"\n") + 1]
        time.sleep(0.02)
    raise AssertionError(f"no {lines} lines within {timeout_s} s")


def test_the_report_says_who_answered(lab: TestLab, measured: dict[str, dict[str, RunFiles]]) -> None:
    assert answers_table(load_results(lab.out / "cluster")) is None
    for where, by in (("once", "node1, node2, node3, node4"), ("scorers", "node1, node2, node3, node4")):
        table = answers_table(load_results(lab.out / where))
        assert table is not None
        source = measured[where]["drop2_all/rep-1"].run.answers
        assert source is not None
        row = next(row for row in table.rows if row[0] == "drop2_all")
        assert row[1] == by and row[3] == source.answer_set_sha256[:12], "scorers take what the cluster had answered"
        assert row[4:7] == ("24", "9", "100.0% [66.4%, 100.0%]") and row[7] == "+0.000"
