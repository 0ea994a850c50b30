"""Which questions were asked: remembered on first use, compared over a campaign, told in report and summary."""

import dataclasses
from pathlib import Path

import pytest

from orchestrator.benchmarks.data_dir import DataDir, docs_sha256
from orchestrator.benchmarks.first_use import FirstUse
from orchestrator.benchmarks.published import PUBLISHED
from orchestrator.domain.analysis.campaign_validity import check_campaign
from orchestrator.domain.analysis.statistics import campaign_statistics
from orchestrator.domain.run.question_sets import QuestionSet
from orchestrator.domain.run.records import AnswerSource, Provenance, RunInput, ServedBy
from orchestrator.reports.report import report_html, report_markdown
from orchestrator.reports.summary import summary_markdown
from orchestrator.results.files import list_runs
from orchestrator.results.read_model import load_results
from orchestrator.results.recompute import MeasuredFiles
from shared.files.atomic import write_file
from shared.kernel.build import SoftwareBuild
from shared.kernel.errors import DataError
from shared.llama.build import EngineBuild
from tests.support.domain_lab import PROTOCOL, run_input
from tests.support.epi_campaign import write_campaign_tree

MMLU_LINE = '{{"question": "{0}", "subject": "s", "choices": ["a", "b", "c", "d"], "answer": 1}}\n'
SET = QuestionSet(
    task="demo_mmlu_2shot", docs_sha256="a" * 64, prompts_sha256="b" * 64, shots=2, available=20, asked=10, trust="own"
)
BUILD = SoftwareBuild(version="0.2.0", code_sha256="1" * 64, packages_sha256="2" * 64, python="3.11.2")
ENGINE = EngineBuild(
    build="llama.cpp 0c1e570", ggml_commit="0c1e570", features=("NEON", "OPENMP"), openmp=True, repack=False,
    kleidiai=False, rpc=True, libraries_sha256="3" * 64,
)  # fmt: skip


def write_mmlu(root: Path, *questions: str) -> None:
    write_file(root / "mmlu" / "test.jsonl", "".join(MMLU_LINE.format(one) for one in questions))


def test_questions_are_trusted_on_first_use_and_compared_later(tmp_path: Path) -> None:
    """Nobody knows whether these are the published ones; that they stay the same, the lab knows."""
    mmlu, remembered = PUBLISHED["mmlu"], tmp_path / "state" / "question-sets.json"
    write_mmlu(tmp_path, "one", "two", "three")
    data = DataDir(tmp_path, FirstUse(remembered))
    data.splits(mmlu)
    assert data.trust(mmlu) == "first_use" and "mmlu/test" in remembered.read_text()
    write_mmlu(tmp_path, "three", "one", "two")
    DataDir(tmp_path, FirstUse(remembered)).splits(mmlu)  # another order, the same questions
    write_mmlu(tmp_path, "one", "two", "thre")
    with pytest.raises(DataError, match="questions of mmlu/test are others than when this lab used them") as refused:
        DataDir(tmp_path, FirstUse(remembered)).splits(mmlu)
    assert str(remembered) in refused.value.hint and refused.value.where == str(tmp_path / "mmlu")
    assert DataDir(tmp_path).splits(mmlu)["test"], "who keeps no state compares nothing"
    remembered.write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        DataDir(tmp_path, FirstUse(remembered)).splits(mmlu)


def test_what_is_known_by_its_hash_needs_no_first_use(tmp_path: Path) -> None:
    write_mmlu(tmp_path, "one", "two")
    mmlu = PUBLISHED["mmlu"]
    known = {"test": docs_sha256(DataDir(tmp_path).splits(mmlu)["test"])}
    sure = dataclasses.replace(mmlu, known=known)
    data = DataDir(tmp_path, FirstUse(tmp_path / "never.json"))
    data.splits(sure)
    assert data.trust(sure) == "known" and not (tmp_path / "never.json").exists()


def findings(*runs: RunInput) -> list[tuple[str, str, str, str]]:
    inputs: dict[str, list[RunInput]] = {}
    for run in runs:
        inputs.setdefault(run.configuration_id, []).append(run)
    configurations = tuple(group[0].configuration for group in inputs.values())
    statistics = campaign_statistics(configurations, {}, {}, PROTOCOL.accuracy)
    found = check_campaign(configurations, 1, inputs, {}, {}, statistics).findings
    return [(one.rule, one.verdict, one.where, one.reason) for one in found if one.rule in ("questions", "output")]


def asking(identity: str, repetition: int, *sets: QuestionSet, **provenance: object) -> RunInput:
    told = Provenance.model_validate({"question_sets": sets, **provenance})
    return run_input(identity, repetition, provenance=told)


def test_another_set_of_questions_fails_the_campaign_by_task_and_run() -> None:
    other = SET.model_copy(update={"docs_sha256": "c" * 64})
    rephrased = SET.model_copy(update={"prompts_sha256": "d" * 64})
    assert findings(asking("baseline", 1, SET), asking("drop2_all", 1, SET), asking("baseline", 2)) == []
    ((rule, verdict, where, reason),) = findings(asking("baseline", 1, SET), asking("drop2_all", 1, other))
    assert (rule, verdict, where) == ("questions", "FAIL", "drop2_all/rep-1")
    assert reason == f"demo_mmlu_2shot: other questions ({'c' * 12}) than baseline/rep-1 ({'a' * 12})"
    ((_, verdict, where, reason),) = findings(asking("baseline", 1, SET), asking("baseline", 2, rephrased))
    assert (verdict, where) == ("FAIL", "baseline/rep-2") and "another choice or wording" in reason


def test_of_answers_that_others_gave_their_questions_count() -> None:
    """The cluster's sample is a choice of its own."""
    sample = SET.model_copy(update={"prompts_sha256": "e" * 64, "asked": 3})
    served = ServedBy(engine="llama.cpp", engine_build="b", model_sha256="f" * 64, nodes=("scorer",))
    source = AnswerSource(answer_set_sha256="9" * 64, served=served, scored_utc_ns=1, question_sets=(SET,))
    run = asking("drop2_all", 1, sample).model_copy(update={"answers": source})
    assert run.question_sets == (SET,) and findings(asking("baseline", 1, SET), run) == []


def test_one_model_file_that_writes_other_tokens_is_flagged() -> None:
    same = {"model_sha256": "1" * 64, "engine_build": "b1", "engine": "llama.cpp"}
    first = asking("baseline", 1, **same, output_sha256="2" * 64)
    ((rule, verdict, where, reason),) = findings(first, asking("baseline", 2, **same, output_sha256="3" * 64))
    assert (rule, verdict, where) == ("output", "FLAG", "baseline/rep-2") and "same model file" in reason
    other_build = same | {"engine_build": "b2"}
    assert findings(first, asking("baseline", 2, **other_build, output_sha256="3" * 64)) == []


def test_report_and_summary_say_what_ran_and_what_was_asked(tmp_path: Path) -> None:
    """Of an old tree, which does not say it, nothing is told and nothing fails."""
    root = write_campaign_tree(tmp_path / "tree", "drop2_all", repetitions=1, per_task=20)
    assert "What ran where" not in report_markdown(load_results(root), ())
    for reference in list_runs(root):
        run = MeasuredFiles.read(root, reference).run
        other = BUILD.model_copy(update={"code_sha256": "7" * 64, "revision": "abcdef0123456789"})
        told = run.provenance.model_copy(
            update={
                "question_sets": (SET,), "software": {"node1": BUILD, "node2": other, "surgeon": BUILD},
                "engines": {"node1": ENGINE, "node2": ENGINE.model_copy(update={"libraries_sha256": "8" * 64})},
            }
        )  # fmt: skip
        path = root / reference.configuration / f"run_{reference.repetition:03d}.json"
        write_file(path, run.model_copy(update={"provenance": told}).model_dump_json())
    data = load_results(root)
    for text in (report_markdown(data, ()), report_html(data, ()), summary_markdown(data)):
        assert "What ran where" in text and "node1, surgeon" in text and "0.2.0+gabcdef012345" in text
        assert "Different code: node1, surgeon: 0.2.0+c111111111111; node2: 0.2.0+gabcdef012345" in text
        assert "questions of demo_mmlu_2shot" in text and "a" * 64 in text
    report = report_markdown(data, ())
    assert "Different engine" in report and "NEON OPENMP" in report and "0c1e570" in report
