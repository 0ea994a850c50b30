"""The real benchmark suite asks an attempt: one gap before the window, one pass at a time, errors as they were."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from orchestrator.benchmarks.records import SuiteSpec
from orchestrator.benchmarks.suite import BenchmarkSuite
from orchestrator.campaign.scoring import Scoring
from orchestrator.domain.campaign.timeouts import TimeoutsSpec
from shared.kernel.errors import InfrastructureError
from shared.wire.node_jobs.activity import AgentActivity
from tests.support.benchmarks_oracle import OracleEngine, write_task


@pytest.fixture
def scoring(tmp_path: Path) -> Scoring:
    write_task(tmp_path, "demo_mmlu_style_3shot", metrics=("acc",))
    spec = SuiteSpec.from_roles(
        {"mmlu_5shot": "demo_mmlu_style_3shot"}, questions=None, seed=3, include_paths=(tmp_path,)
    )
    return Scoring(BenchmarkSuite(spec), TimeoutsSpec())


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
    counting, activity = await scoring.ask_all(nodes)
    assert len((await counting).questions) == 40
    assert nodes.first == [True] and [one.agent_cpu_s for one in activity] == [0.5]


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
