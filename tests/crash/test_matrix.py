"""SIGKILL of every process at every journal boundary, and at random moments: the campaign ends by itself.

Each case kills one process as soon as the journal holds the intent of each step, once a step, in one campaign. At the
end the scores equal those of an undisturbed campaign, no run was done twice, and every attempt is explained.
"""

import os
import random
import signal
import time
from contextlib import suppress

import pytest

from orchestrator.domain.steps import CONFIGURATION_STEPS, RUN_STEPS, SETUP_STEPS
from orchestrator.local.layout import LocalLab
from shared.errors import InfrastructureError
from tests.crash.answers import answers
from tests.lab import TestLab, api_of, process_of, quick_spec, running_lab, start_campaign, wait_for_end

CONFIGURATIONS = ("baseline", "drop4_all")
STEPS = (*SETUP_STEPS, *CONFIGURATION_STEPS, *RUN_STEPS)
PROCESSES = ("orchestrator", "surgeon", "meter", "node1", "node2", "node3", "node4", "engine", "worker")


def pid_of(lab: LocalLab, process: str) -> int | None:
    """Return the pid of a process of the lab, None when it does not live now."""
    if process in ("engine", "worker"):
        node = "node1" if process == "engine" else "node3"
        try:
            return int((lab.node_pids(node) / f"{process}.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None
    try:
        return process_of(lab, process)
    except AssertionError:
        return None


def kill(lab: LocalLab, process: str) -> bool:
    pid = pid_of(lab, process)
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return True


def check_end(lab: TestLab, campaign: str, timeout_s: float) -> None:
    status = wait_for_end(lab, campaign, timeout_s)
    assert status["state"] == "finished", status["reason"]
    for run in status["runs"]:
        outcomes = [attempt["outcome"] for attempt in run["attempts"]]
        assert outcomes.count("done") == 1 and outcomes[-1] == "done", run
        assert all(attempt["reason"] for attempt in run["attempts"][:-1]), run


@pytest.fixture(scope="module")
def lab() -> object:
    with running_lab() as running:
        start_campaign(running, quick_spec("calm", ",".join(CONFIGURATIONS), questions=4))
        assert wait_for_end(running, "calm")["state"] == "finished"
        yield running


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("process", PROCESSES)
def test_killed_at_every_step(lab: TestLab, process: str) -> None:
    campaign = f"kill-{process}"
    spec = quick_spec(campaign, ",".join(CONFIGURATIONS), questions=4)
    start_campaign(lab, spec.model_copy(update={"max_attempts": 20}))
    seen, killed = 0, []
    waiting = set(STEPS)
    deadline = time.monotonic() + 600
    while waiting and time.monotonic() < deadline:
        try:
            entries = api_of(lab).call("GET", f"/v1/entries?campaign={campaign}&since={seen}&limit=1000")
        except InfrastructureError:
            time.sleep(0.1)
            continue
        for entry in entries:
            seen = entry["seq"]
        # Only the newest intent is "now"; older ones of the same answer have passed.
        intents = [entry for entry in entries if entry["kind"] == "intent"]
        if intents and (step := intents[-1]["step"].split("@")[0]) in waiting:
            waiting.discard(step)
            if kill(lab, process):
                killed.append(step)
        if any(entry["kind"] == "state" and entry["payload"].get("state") == "finished" for entry in entries):
            break
        time.sleep(0.02)
    assert len(killed) >= 6, killed
    check_end(lab, campaign, 300)
    assert answers(lab, campaign, CONFIGURATIONS) == answers(lab, "calm", CONFIGURATIONS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_100_random_moments(lab: TestLab) -> None:
    chance = random.Random(7)
    spec = quick_spec("storm", ",".join(CONFIGURATIONS), repetitions=8, questions=4)
    start_campaign(lab, spec.model_copy(update={"max_attempts": 20}))
    kills = 0
    while kills < 100:
        time.sleep(chance.uniform(1.0, 10.0))
        kills += kill(lab, chance.choice(PROCESSES))
        with suppress(InfrastructureError):
            if api_of(lab).call("GET", "/v1/campaigns/storm")["state"] == "finished":
                break
    check_end(lab, "storm", 900)
    assert answers(lab, "storm", CONFIGURATIONS) == answers(lab, "calm", CONFIGURATIONS)
    assert kills == 100, f"the campaign ended after {kills} kills: give it more repetitions"
