"""Between a fault and the next attempt: old jobs are stopped and journaled, strangers' are not, the away are named."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.campaign.calls import Call, Caller
from orchestrator.campaign.lab import Lab
from orchestrator.campaign.recovery import Recovery, what_became_of
from orchestrator.domain.campaign.accuracy_tasks import TasksSpec
from orchestrator.domain.campaign.job_keys import AttemptJob
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.settings import OrchestratorSettings
from orchestrator.store.journal import Journal, open_journal
from shared.kernel.errors import ConfigurationError, InfrastructureError, NotFoundError
from shared.kernel.settings import AgentAddress
from shared.wire.client import AgentClient
from tests.support.hanging_agent import Nothing, agent_that_hangs

TASKS = TasksSpec(mmlu_5shot="a", arc_challenge_25shot="b", hellaswag_10shot="c")
LEFT = "camp/baseline/rep-1/attempt-1/score/node1/score"
STRANGERS = ("somebody/baseline/rep-1/attempt-1/score/node1/score", "camp/setup/fetch_base/node1/try-1", "by-hand")


@dataclass
class Nodes:
    """What recovery needs of a lab."""

    nodes: dict[str, AgentClient]

    def agent(self, name: str) -> AgentClient:
        if name not in self.nodes:
            raise NotFoundError("the lab has no such agent", where=name)
        return self.nodes[name]


def recovery(journal: Journal, nodes: Nodes, told: list[str], recover_s: float = 0.0) -> Recovery:
    async def check_stop_requested() -> None:
        pass

    return Recovery(journal, nodes, recover_s, check_stop_requested, told.append)  # type: ignore[arg-type]


async def test_only_our_own_old_attempts_are_stopped(tmp_path: Path) -> None:
    async with agent_that_hangs(tmp_path) as client, open_journal(tmp_path / "journal.sqlite") as journal:
        await journal.create(CampaignSpec(id="camp", model="m", corpus="c", tasks=TASKS))
        for job in (LEFT, *STRANGERS):
            await client.submit(job, "hang", Nothing())
        lab = Nodes({"node1": client})
        assert await what_became_of(lab, AttemptJob.parse(LEFT)) == "node1 says it is running"  # type: ignore[arg-type]
        await recovery(journal, lab, []).stop_leftovers()
        assert sorted(job.id for job in await client.unfinished_jobs()) == sorted(STRANGERS)
        assert (await client.job(LEFT)).status == "cancelled"
        entry = (await journal.entries())[-1]
        assert (entry.kind, entry.run, entry.attempt, entry.step) == ("interrupted", "baseline/rep-1", 1, "score")
        assert entry.payload == {"job": LEFT, "agent": "node1", "was": "running"}
        again = AttemptJob.parse(LEFT).model_copy(update={"attempt": 2})
        assert await what_became_of(lab, again) == "node1 had not got it yet"  # type: ignore[arg-type]
        elsewhere = again.model_copy(update={"agent": "node9"})
        found = await what_became_of(lab, elsewhere)  # type: ignore[arg-type]
        assert found == "node9 cannot be asked: the lab has no such agent"


async def test_a_configuration_fault_is_never_tried_again_not_even_after_a_restart(tmp_path: Path) -> None:
    async def recover(_agent: str) -> None:
        raise AssertionError("only infrastructure is waited for")

    async with agent_that_hangs(tmp_path) as client, open_journal(tmp_path / "journal.sqlite") as journal:
        await journal.create(CampaignSpec(id="camp", model="m", corpus="c", tasks=TASKS))
        await journal.set_state("camp", "running")
        call = Call("surgeon", client, "unknown", Nothing(), timeout_s=5)
        for _restart in range(2):
            caller = Caller(journal, "camp", 3, recover, lambda *_: None)
            with pytest.raises(ConfigurationError, match="unknown job kind"):
                await caller.idempotent("drop1_all", "plan", call, Nothing)
        assert await journal.count("camp", "drop1_all", "plan@surgeon", "intent") == 1
        await journal.set_state("camp", "failed", "why")
        await journal.set_state("camp", "running", "resumed by the user")
        with pytest.raises(ConfigurationError):
            await caller.idempotent("drop1_all", "plan", call, Nothing)
        assert await journal.count("camp", "drop1_all", "plan@surgeon", "intent") == 2, "mended, says the user"


async def test_who_is_away_is_waited_for_and_named(tmp_path: Path) -> None:
    told: list[str] = []
    async with open_journal(tmp_path / "journal.sqlite") as journal:
        away = AgentClient("http://127.0.0.1:9", None)
        with pytest.raises(InfrastructureError, match="did not come back within 2 s: node2 does not answer"):
            await asyncio.wait_for(recovery(journal, Nodes({"node2": away}), told, 2.0).wait_for("node2"), 30)
        await away.close()
    assert told[0] == "waiting: node2 does not answer"


async def test_every_agent_of_the_lab_can_be_asked_and_no_node_is_called_like_the_surgeon(tmp_path: Path) -> None:
    away = "http://127.0.0.1:9"

    def settings(*nodes: str) -> OrchestratorSettings:
        return OrchestratorSettings(
            name="orchestrator", port=1, state_dir=tmp_path, results_dir=tmp_path, workload_prompts=tmp_path / "p.txt",
            nodes=tuple(AgentAddress(name=name, url=away) for name in nodes),
            surgeon=AgentAddress(name="surgeon", url=away), meter=AgentAddress(name="meter", url=away),
        )  # fmt: skip

    lab = Lab(settings("node1", "node2"))
    assert lab.agent("surgeon") is lab.surgeon and lab.agent("node2") is lab.nodes["node2"]
    with pytest.raises(NotFoundError, match="no such agent"):
        lab.agent("node3")
    job = AttemptJob.parse("camp/drop1_all/rep-1/attempt-1/apply/surgeon/apply")
    assert "surgeon cannot be asked" in await what_became_of(lab, job)
    await lab.close()
    for nodes in (("surgeon",), ("node1", "node1")):
        with pytest.raises(ValidationError, match="is the name of two agents"):
            settings(*nodes)
