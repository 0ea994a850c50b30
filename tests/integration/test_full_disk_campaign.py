"""Disks that fill up in the middle of a campaign: it stands still, says why, and goes on by itself when there is room.

One campaign on a real lab whose orchestrator's state, whose root's state and whose results lie on file systems of a few
megabytes. Each is filled to the last byte in the middle of a run.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from orchestrator.cli.api import Api
from orchestrator.local.layout import LocalLab
from shared.kernel.errors import StorageError
from tests.support.lab import (
    TestLab,
    api_of,
    new_lab,
    process_of,
    short_spec,
    small_demo,
    start_campaign,
    wait_for_end,
    wait_for_step,
)
from tests.support.small_disk import SmallDisk, small_disk

pytestmark = pytest.mark.mounts

RUN = "baseline"
CAMPAIGN = "full"


class Lab:
    """The lab and its small disks."""

    def __init__(self, lab: TestLab, stack: ExitStack) -> None:
        self.lab = lab
        state = lab.home / "state"
        self.journal = stack.enter_context(small_disk(state / "orchestrator", 8))
        self.root = stack.enter_context(small_disk(state / "node1", 64))
        self.results = stack.enter_context(small_disk(lab.out / CAMPAIGN, 8))
        stack.callback(lab.stop)
        lab.start(small_demo(lab.home))


@pytest.fixture
def small() -> Iterator[Lab]:
    with new_lab() as lab, ExitStack() as stack:
        yield Lab(lab, stack)


def until(true: Callable[[], object], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def health_of(lab: LocalLab, part: str = "orchestrator") -> dict[str, Any]:
    found: dict[str, Any] = Api(lab.url(part), lab.token(part)).call("GET", "/v1/health")
    return found


def says(lab: LocalLab, words: str, part: str = "orchestrator") -> bool:
    health = health_of(lab, part)
    return health["status"] == "failing" and words in health["problems"][0]


def jobs_of_root(lab: LocalLab) -> list[str]:
    return [job["id"] for job in Api(lab.url("node1"), lab.token("node1")).call("GET", "/v1/jobs?limit=1000")]


def attempts_of(lab: LocalLab, repetition: int) -> list[dict[str, Any]]:
    runs = api_of(lab).call("GET", f"/v1/campaigns/{CAMPAIGN}")["runs"]
    return next(run["attempts"] for run in runs if run["repetition"] == repetition)


def healed(lab: LocalLab, disk: SmallDisk, part: str = "orchestrator") -> None:
    disk.empty()
    until(lambda: health_of(lab, part)["status"] == "ok", f"{part} heals")


@pytest.mark.timeout(600)
def test_each_disk_of_a_campaign_fills_up_once(small: Lab) -> None:
    lab, api = small.lab, api_of(small.lab)
    orchestrator = process_of(lab, "orchestrator")
    spec = short_spec(CAMPAIGN, RUN, repetitions=3)
    start_campaign(lab, spec.model_copy(update={"max_attempts": 2}))

    wait_for_step(lab, CAMPAIGN, f"{RUN}/rep-1", "prefill")
    small.journal.fill()
    until(lambda: says(lab, "the journal cannot be written: the disk is full"), "the journal's disk is told")
    for what in ("pause", "cancel"):
        with pytest.raises(StorageError, match="the disk is full") as refused:
            api.call("POST", f"/v1/campaigns/{CAMPAIGN}/{what}")
        assert "make room" in refused.value.hint
    asked = jobs_of_root(lab)
    time.sleep(5)
    assert jobs_of_root(lab) == asked, "while nothing can be written down, no node is asked for anything"
    assert api.call("GET", f"/v1/campaigns/{CAMPAIGN}")["state"] == "running"
    healed(lab, small.journal)

    wait_for_step(lab, CAMPAIGN, f"{RUN}/rep-2", "prefill")
    small.root.fill()
    until(lambda: says(lab, "the job table cannot be written: the disk is full", "node1"), "the root's disk is told")
    until(lambda: attempts_of(lab, 2)[0]["outcome"] == "failed", "the attempt is given up")
    healed(lab, small.root, "node1")

    wait_for_step(lab, CAMPAIGN, f"{RUN}/rep-3", "prefill")
    small.results.fill()
    until(lambda: says(lab, f"{CAMPAIGN}/baseline/"), "the results' disk is told", 120)
    healed(lab, small.results)

    status = wait_for_end(lab, CAMPAIGN)
    assert status["state"] == "finished", status["reason"]
    assert process_of(lab, "orchestrator") == orchestrator, "nothing died of it"
    first, second, third = (attempts_of(lab, repetition) for repetition in (1, 2, 3))
    assert [one["outcome"] for one in first] == ["failed", "done"]
    assert "the journal cannot be written: the disk is full" in first[0]["reason"]
    assert [one["outcome"] for one in second] == ["failed", "done"]
    assert "the job table cannot be written: the disk is full" in second[0]["reason"]
    assert [one["outcome"] for one in third] == ["done"], "what was measured is not measured again for want of room"
    assert (lab.out / CAMPAIGN / "report.md").is_file()


@pytest.mark.timeout(400)
def test_a_request_to_stop_is_obeyed_while_the_results_have_no_room(small: Lab) -> None:
    lab, api = small.lab, api_of(small.lab)
    start_campaign(lab, short_spec(CAMPAIGN, RUN))
    wait_for_step(lab, CAMPAIGN, f"{RUN}/rep-1", "prefill")
    small.results.fill()
    until(lambda: says(lab, f"{CAMPAIGN}/baseline/"), "the results' disk is told", 120)
    api.call("POST", f"/v1/campaigns/{CAMPAIGN}/pause")
    assert wait_for_end(lab, CAMPAIGN)["state"] == "paused"
    (attempt,) = attempts_of(lab, 1)
    assert attempt["outcome"] is None, "it is measured and kept: nothing ends it but its evaluation"
    small.results.empty()
    api.call("POST", f"/v1/campaigns/{CAMPAIGN}/resume")
    assert wait_for_end(lab, CAMPAIGN)["state"] == "finished"
    assert [one["outcome"] for one in attempts_of(lab, 1)] == ["done"], "the same attempt, not another"
