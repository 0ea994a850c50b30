"""A pass that is stopped in the middle goes on where it was, with the result of an undisturbed one."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.benchmarks.records import SuiteResult, SuiteSpec
from orchestrator.benchmarks.resume import ResumableScore
from orchestrator.benchmarks.suite import BenchmarkSuite
from shared.kernel.errors import ConfigurationError, DataError, InfrastructureError
from shared.wire.node_jobs.workloads import ScoreParams, ScoreResult
from tests.support.benchmarks_oracle import OracleEngine, write_task

ROLES = {"mmlu_5shot": "demo_mmlu_style_3shot", "arc_challenge_25shot": "demo_arc_style_2shot"}


class _DyingEngine(OracleEngine):
    """Answers a number of jobs, then is gone."""

    def __init__(self, jobs: int) -> None:
        super().__init__()
        self._left = jobs

    def __call__(self, params: ScoreParams) -> ScoreResult:
        if self._left == 0:
            raise InfrastructureError("the engine is gone")
        self._left -= 1
        return super().__call__(params)


def _asked(engine: OracleEngine) -> int:
    return sum(len(group.items) for job in engine.calls for group in job.groups)


def _answers(result: SuiteResult) -> list[Any]:
    return [(q.question_id, q.choice, q.correct, q.log_likelihoods) for q in result.questions]


@pytest.fixture
def suite(tmp_path: Path) -> BenchmarkSuite:
    for shots, name in enumerate(ROLES.values(), start=2):
        write_task(tmp_path, name, shots=shots)
    return BenchmarkSuite(SuiteSpec.from_roles(ROLES, questions=None, seed=1, include_paths=(tmp_path,)))


def test_a_stopped_pass_goes_on(suite: BenchmarkSuite, tmp_path: Path) -> None:
    path = tmp_path / "kept" / "answers.jsonl"
    dying = _DyingEngine(jobs=3)
    with pytest.raises(InfrastructureError):
        suite.run(ResumableScore(dying, path, identity="model 1", questions_per_job=15))
    assert _asked(dying) == 45
    with path.open("ab") as file:
        file.write(b'{"key": "half a li')  # killed in the middle of a write
    second = OracleEngine()
    score = ResumableScore(second, path, identity="model 1", questions_per_job=15)
    resumed = suite.run(score)
    assert score.reused == 45
    assert _asked(second) == 80 - 45
    assert len(score.spans) == len(second.calls) == 3
    assert _answers(resumed) == _answers(suite.run(OracleEngine()))
    assert resumed.ledger.scored == 4 * 80
    third = OracleEngine()
    assert suite.run(ResumableScore(third, path, identity="model 1")) == resumed
    assert third.calls == []


def test_answers_of_another_model_are_refused(suite: BenchmarkSuite, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    suite.run(ResumableScore(OracleEngine(), path, identity="model 1"))
    with pytest.raises(ConfigurationError, match="another model"):
        ResumableScore(OracleEngine(), path, identity="model 2")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    ResumableScore(OracleEngine(), path, identity="model 1")
    with path.open("a", encoding="utf-8") as file:
        file.write("nonsense\n")
    with pytest.raises(DataError, match="damaged"):
        ResumableScore(OracleEngine(), path, identity="model 1")
