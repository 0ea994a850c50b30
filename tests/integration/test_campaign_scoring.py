"""The real benchmark suite asks an attempt: one gap before the window, one pass at a time, errors as they were."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from orchestrator.benchmarks.records import SuiteSpec, WindowAnswers
from orchestrator.benchmarks.suite import BenchmarkSuite
from orchestrator.campaign.scoring import Scoring
from orchestrator.domain.campaign.timeouts import TimeoutsSpec
from shared.kernel.errors import DataError, InfrastructureError
from shared.wire.node_jobs.activity import AgentActivity
from tests.support.benchmarks_oracle import OracleEngine, write_task


@pytest.fixture
def scoring(tmp_path: Path) -> Scoring:
    write_task(tmp_path, "demo_mmlu_style_3shot", metrics=("acc",))
    return Scoring(suite_of(tmp_path), TimeoutsSpec())


def suite_of(folder: Path) -> BenchmarkSuite:
    roles = {"mmlu_5shot": "demo_mmlu_style_3shot"}
    return BenchmarkSuite(SuiteSpec.from_roles(roles, questions=None, seed=3, include_paths=(folder,)))


class Nodes:
    """The cluster of an attempt: answers by the oracle and notes how it was asked."""

    def __init__(self) -> None:
        self.engine = OracleEngine()
        self.first: list[bool] = []

    async def __call__(self, kind: str, params: Any, result: type[Any], timeout_s: float, *, first: bool) -> Any:
        assert kind == "score" and timeout_s > 0
        self.first.append(first)
        activity = AgentActivity(start_utc_ns=0, end_utc_ns=1, agent_cpu_s=0.5, agent_written_bytes=0)
        return self.engine(params).model_copy(update={"agent": activity})


async def test_the_window_begins_once_and_what_the_agent_did_is_told(scoring: Scoring) -> None:
    nodes = Nodes()
    counting, answers = await scoring.ask_all(nodes)
    assert len((await counting).questions) == 40
    assert nodes.first == [True] and [one.agent.agent_cpu_s for one in answers.spans if one.agent] == [0.5]


async def test_answers_that_were_kept_are_counted_by_another_process(scoring: Scoring, tmp_path: Path) -> None:
    """What a suite counts does not depend on who asked: its answers, written and read, give the same result."""
    counting, answers = await scoring.ask_all(Nodes())
    then = await counting
    again = suite_of(tmp_path).count(WindowAnswers.model_validate_json(answers.model_dump_json()))
    assert again == then
    with pytest.raises(DataError, match="of another suite"):
        suite_of(tmp_path).count(WindowAnswers())


async def test_the_next_pass_waits_for_the_one_before(scoring: Scoring) -> None:
    await scoring.wait_for_last()
    first, _ = await scoring.ask_all(Nodes())
    await scoring.wait_for_last()
    assert first.done()
    second, _ = await scoring.ask_all(Nodes())
    assert (await first).questions == (await second).questions


async def test_what_a_job_says_went_wrong_ends_the_window(scoring: Scoring) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise InfrastructureError("the node went away")

    with pytest.raises(InfrastructureError, match="went away"):
        await scoring.ask_all(broken)
    await asyncio.wait_for(scoring.wait_for_last(), 5)
    assert len((await (await scoring.ask_all(Nodes()))[0]).questions) == 40, "a broken pass leaves the suite whole"
