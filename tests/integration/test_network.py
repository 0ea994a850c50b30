"""Four node agents on their own addresses, in network namespaces: one is cut off, slow or lossy during a step.

The attempt is interrupted or fails with the reason in words, is kept, and a new one is made; nothing hangs. Needs root
(`ip netns`, `tc`, `nft`).
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from orchestrator.domain.campaign.job_keys import AttemptJob
from orchestrator.domain.campaign.spec import WorkloadSpec
from orchestrator.domain.campaign.steps import WINDOW_STEPS
from orchestrator.domain.campaign.timeouts import TimeoutsSpec
from orchestrator.local.layout import load_demo
from tests.support.lab import (
    DEMO,
    TestLab,
    api_of,
    running_lab,
    short_spec,
    start_campaign,
    wait_for_end,
    wait_for_step,
)
from tests.support.netlab import NetLab, net_lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NODES = ("node1", "node2", "node3", "node4")
STEPS = ("deploy", "start_engine", "idle", "marker", "prefill", "decode", "score", "evaluate")
LONGEST_CUT_S = 75.0
"""Longer than the keepalive of an engine (half a minute) and than the event feed's (40 s)."""
TIMEOUTS = TimeoutsSpec(
    steps={"deploy": 30, "start_engine": 60, "marker": 30, "prefill": 60, "decode": 60, "score": 60}, recover_s=120
)
"""Wide for the embedded model on a busy machine, short enough to see that they hold."""


@dataclass
class Scene:
    """A running lab and its network."""

    lab: TestLab
    net: NetLab


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    assert os.geteuid() == 0, "network namespaces need root; do: sudo make test-slow"
    for tool, package in (("ip", "iproute2"), ("tc", "iproute2"), ("nft", "nftables")):
        assert shutil.which(tool), f"{tool} is needed; do: sudo apt-get install -y {package}"
    with net_lab(NODES) as net:
        demo = load_demo(DEMO).model_copy(
            update={
                "hosts": {node: net.address(node) for node in NODES} | {"surgeon": net.broadcaster},
                "namespaces": {node: net.namespace(node) for node in NODES},
            }
        )
        file: Path = tmp_path_factory.mktemp("demo") / "demo.toml"
        file.write_text(tomli_w.dumps({"lab": demo.model_dump(mode="json", exclude_none=True)}))
        with running_lab(file) as lab:
            start_campaign(lab, short_spec("calm", "baseline"))
            assert explained(wait_for_end(lab, "calm", timeout_s=600)) == ["done"]
            yield Scene(lab, net)


def explained(status: dict[str, Any]) -> list[str]:
    """Return the outcomes of the only run's attempts; whatever did not end well says why."""
    (run,) = status["runs"]
    assert run["attempts"][-1]["outcome"] == "done"
    for attempt in run["attempts"]:
        assert attempt["outcome"] == "done" or attempt["reason"], attempt
    return [attempt["outcome"] for attempt in run["attempts"]]


def test_an_undisturbed_campaign_ends_over_the_network(scene: Scene) -> None:
    assert api_of(scene.lab).call("GET", "/v1/campaigns/calm")["state"] == "finished"


def cut_off(scene: Scene, node: str, campaign: str) -> float:
    """Pull a node's cable until the attempt has ended, but no longer than any keepalive; return how long it was."""
    start = time.monotonic()
    with scene.net.cut(node):
        while (seconds := time.monotonic() - start) < LONGEST_CUT_S:
            (run,) = api_of(scene.lab).call("GET", f"/v1/campaigns/{campaign}")["runs"]
            if run["attempts"] and run["attempts"][0]["outcome"] is not None:
                break
            time.sleep(0.5)
    return seconds


def worker_of(scene: Scene, node: str) -> str:
    """Return what tells a node's worker process from every other."""
    return (scene.lab.node_pids(node) / "worker.pid").read_text()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("node", ["node1", "node3"])
def test_a_node_cut_off_costs_an_attempt_and_not_the_campaign(scene: Scene, node: str, step: str) -> None:
    campaign = f"cut-{node}-{step.replace('_', '-')}"
    start_campaign(scene.lab, short_spec(campaign, "baseline").model_copy(update={"timeouts": TIMEOUTS}))
    wait_for_step(scene.lab, campaign, "baseline/rep-1", step)
    begun = step in WINDOW_STEPS  # before, each first attempt starts its workers anew
    workers = {name: worker_of(scene, name) for name in NODES} if begun else {}
    seconds = cut_off(scene, node, campaign)
    status = wait_for_end(scene.lab, campaign, timeout_s=600)
    assert status["state"] == "finished", status["reason"]
    outcomes = explained(status)
    print(f"\n{node} cut off in {step} for {seconds:.0f} s: {', '.join(outcomes)}")
    for attempt in status["runs"][0]["attempts"]:
        longest_s = sum(TIMEOUTS.steps.values())
        assert (attempt["ended_utc_ns"] - attempt["started_utc_ns"]) / 1e9 < longest_s, "hung beyond its timeouts"
    # Nobody was asked to do anything twice (one job an id); what had broken was begun anew with all workers.
    entries = api_of(scene.lab).call("GET", f"/v1/entries?campaign={campaign}&limit=1000")
    jobs = [entry["payload"]["job"] for entry in entries if entry["kind"] == "intent" and "job" in entry["payload"]]
    inside = [job for job in jobs if AttemptJob.pattern.fullmatch(job) and AttemptJob.parse(job).step != "score"]
    assert len(inside) == len(set(inside))
    again = {name for name, worker in workers.items() if worker_of(scene, name) != worker}
    assert again == (set(workers) if len(outcomes) > 1 else set())


def test_a_node_that_is_away_at_the_start_is_waited_for(scene: Scene) -> None:
    """Its base model cannot be brought while it is away; the campaign goes on when it is back."""
    with scene.net.cut("node3"):
        start_campaign(scene.lab, short_spec("away", "baseline").model_copy(update={"timeouts": TIMEOUTS}))
        time.sleep(40)
        waiting = api_of(scene.lab).call("GET", "/v1/campaigns/away")
        assert waiting["state"] == "running"
        assert [run["state"] for run in waiting["runs"] if run["state"] == "done"] == []
    status = wait_for_end(scene.lab, "away", timeout_s=600)
    assert status["state"] == "finished", status["reason"]


@pytest.mark.parametrize("kind", ["slow", "lossy"])
def test_a_poor_network_is_borne(scene: Scene, kind: str) -> None:
    campaign = f"poor-{kind}"
    poor: AbstractContextManager[None] = getattr(scene.net, kind)("node2")
    spec = short_spec(campaign, "baseline")
    # The engine sends its graph with every token, which takes seconds at 12.5 kB/s: few tokens, or this takes an hour.
    few = WorkloadSpec(tokens_each=16, prompts=1)
    windows = spec.windows.model_copy(update={"prefill": few, "decode": few})
    assert spec.tasks is not None
    spec = spec.model_copy(update={"windows": windows, "tasks": spec.tasks.model_copy(update={"questions": 1})})
    start_campaign(scene.lab, spec)
    wait_for_step(scene.lab, campaign, "baseline/rep-1", "idle")
    with poor:
        status = wait_for_end(scene.lab, campaign, timeout_s=600)
    assert status["state"] == "finished", status["reason"]
    assert explained(status)[-1] == "done"
