"""How long a step may take: derived from what it does, told otherwise by the spec, and never for ever."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.campaign.calls import Call, Caller
from orchestrator.campaign.spec_file import load_spec
from orchestrator.campaign.spec_library import EXAMPLES
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.timeouts import TimeoutsSpec
from orchestrator.store.journal import open_journal
from shared.kernel.errors import InfrastructureError
from shared.wire.client import JobTimeoutError
from shared.wire.node_jobs.workloads import MarkerParams, ScoreGroup, ScoreItem, ScoreParams
from tests.support.hanging_agent import Nothing, agent_that_hangs

GB = 10**9


def test_timeouts_follow_sizes_and_tokens() -> None:
    at = TimeoutsSpec(transfer_bytes_per_s=1e6, prefill_tokens_per_s=10, decode_tokens_per_s=1)
    assert at.transfer("start_engine", GB) == 120 + 1000
    assert at.rewrite("apply", GB) == 120 + 3000
    assert at.fetch("deploy", GB) == 120 + 6000
    assert at.marker(MarkerParams(on_s=5, off_s=5, cycles=3)) == 120 + 35
    assert at.prefill(4000) == 120 + 400
    assert at.decode(("x" * 19,) * 2, 30, repeats=2) == 120 + 2 * 2 * (1 + 30)
    item = ScoreItem(suffix="y" * 8, continuations=("z" * 10, "z" * 30))
    assert at.score(ScoreParams(groups=(ScoreGroup(prefix="x" * 198, items=(item,)),))) == 120 + (100 + 10 + 20) / 10


def test_the_spec_overrides_a_step_and_large_models_get_hours_not_days() -> None:
    at = TimeoutsSpec(steps={"decode": 77.0, "prepare": 5.0})
    assert at.decode(("x",), 10**6, repeats=1) == 77 and at.unsized("prepare") == 5
    spec = load_spec(EXAMPLES / "paper.toml")
    decode = spec.windows.decode
    hours = spec.timeouts.decode(("x" * 400,) * decode.prompts, decode.tokens_each, decode.repeats) / 3600
    assert 1 < hours < 24, "30 billion parameters at 4 token/s take 35 minutes"
    assert 1 < spec.timeouts.transfer("start_engine", 18 * GB) / 3600 < 6


async def test_a_job_over_its_time_is_cancelled_and_frees_the_queue(tmp_path: Path) -> None:
    async with agent_that_hangs(tmp_path) as client:
        first = asyncio.create_task(client.run("c/first", "hang", Nothing(), timeout_s=0.8))
        await asyncio.sleep(0.3)
        assert [job.id for job in await client.unfinished_jobs()] == ["c/first"]
        # The second waits in the queue behind the first: its own time starts when it begins to run.
        with pytest.raises(JobTimeoutError, match="still running after 1 s"):
            await client.run("c/second", "hang", Nothing(), timeout_s=1.0)
        with pytest.raises(JobTimeoutError):
            await first
        assert (await client.job("c/first")).status == (await client.job("c/second")).status == "cancelled"
        assert await client.unfinished_jobs() == []


async def test_the_error_names_step_and_node_and_what_to_do(tmp_path: Path) -> None:
    async def recover(_agent: str) -> None:
        raise AssertionError("an attempt's call is made once")

    async with agent_that_hangs(tmp_path) as client, open_journal(tmp_path / "journal.sqlite") as journal:
        caller = Caller(journal, "camp", 3, recover, lambda *_: None)
        call = Call("node1", client, "hang", Nothing(), timeout_s=0.3)
        with pytest.raises(InfrastructureError) as caught:
            await caller.once(RunReference.parse("baseline/rep-1"), 1, "decode", call, Nothing)
    assert "decode took longer than 0 s" in caught.value.message
    assert "node1" in caught.value.where and "timeouts.steps.decode" in caught.value.hint
