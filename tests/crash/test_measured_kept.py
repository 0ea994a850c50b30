"""A run that is measured is evaluated, whatever dies before its trace is read: the bridge, the orchestrator, both.

The orchestrator halts at the boundary where the run is kept and nothing of its trace is read: there these tests strike.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.local import control
from orchestrator.store.copies import JournalCopies, damage_of
from tests.crash.answers import answers, check_end, entries_of
from tests.crash.stepwise import StepwiseLab, stepwise_lab
from tests.crash.test_matrix import keep_starting
from tests.support.lab import TestLab, api_of, process_of, short_spec, start_campaign, wait_for_end

RUN = "baseline"


@pytest.fixture(scope="module")
def lab() -> Iterator[StepwiseLab]:
    with stepwise_lab() as running:
        yield running


@contextmanager
def measured(lab: StepwiseLab, spec: CampaignSpec) -> Iterator[None]:
    """Start a campaign; inside the block its run is kept, and the orchestrator stands still until the end of it."""
    with lab.stepwise() as boundaries:
        starter = keep_starting(lab, spec)
        while True:
            entry = boundaries.next(timeout_s=300)
            if (entry.campaign, entry.step, entry.kind) == (spec.id, "evaluate", "intent"):
                break
            boundaries.go()
        starter.join()
        time.sleep(0.5)  # what the bridge needs to have of the last window arrives
        yield


def spec_of(name: str, *, recover_s: float = 60.0) -> CampaignSpec:
    spec = short_spec(name, RUN)
    return spec.model_copy(update={"timeouts": spec.timeouts.model_copy(update={"recover_s": recover_s})})


@contextmanager
def bridge_away(lab: TestLab) -> Iterator[None]:
    """Kill the bridge and let it not come back inside the block."""
    config = lab.config_file("meter")
    hidden = config.with_suffix(".hidden")
    pid = process_of(lab, "meter")
    config.rename(hidden)
    try:
        os.kill(pid, signal.SIGKILL)
        yield
    finally:
        hidden.rename(config)


def kill_orchestrator(lab: StepwiseLab) -> None:
    os.kill(process_of(lab, "orchestrator"), signal.SIGKILL)
    time.sleep(0.2)


def pending_files(lab: TestLab, campaign: str) -> list[str]:
    folder = lab.home / "state/orchestrator/pending" / campaign
    return [str(path.relative_to(folder)) for path in folder.rglob("*.json")]


def boundaries(lab: TestLab, campaign: str, step: str) -> list[str]:
    return [row["kind"] for row in entries_of(lab, campaign) if row["step"] == step and row["run"]]


@pytest.mark.timeout(400)
def test_killed_between_measuring_and_evaluating(lab: StepwiseLab) -> None:
    """Nor is it measured again for want of counting: the nodes' answers are kept before the suite has counted them."""
    with measured(lab, spec_of("killed")):
        assert pending_files(lab, "killed") == ["baseline/rep-1.attempt-1.json"]
        kept = json.loads((lab.home / "state/orchestrator/pending/killed/baseline/rep-1.attempt-1.json").read_text())
        assert kept["questions"] == [] and kept["uncounted"]["score"]["groups"]
        kill_orchestrator(lab)
    status = check_end(lab, "killed", 240)
    assert [attempt["outcome"] for attempt in status["runs"][0]["attempts"]] == ["done"]
    assert boundaries(lab, "killed", "evaluate") == ["intent", "intent", "result"]
    assert pending_files(lab, "killed") == []
    start_campaign(lab, spec_of("calm"))
    check_end(lab, "calm", 240)
    assert answers(lab, "killed", [RUN]) == answers(lab, "calm", [RUN])
    copies = JournalCopies(lab.home / "state/orchestrator/journal.sqlite").newest_first()
    assert copies and [damage_of(copy.path) for copy in copies] == [None] * len(copies)


@pytest.mark.timeout(400)
def test_a_bridge_that_is_away_too_long_stops_the_campaign_and_loses_nothing(lab: StepwiseLab) -> None:
    with ExitStack() as stack:
        with measured(lab, spec_of("away", recover_s=2.0)):
            stack.enter_context(bridge_away(lab))
        status = wait_for_end(lab, "away")
        assert status["state"] == "failed"
        assert "baseline/rep-1 is measured, but its trace cannot be read from the meter bridge" in status["reason"]
        assert "epi campaign resume" in status["reason"]
        (run,) = status["runs"]
        assert (run["state"], run["step"], run["attempts"][0]["outcome"]) == ("pending", "evaluate", None)
        kill_orchestrator(lab)  # and what is kept is on disk
    control.wait_ready(lab, lab.home / "demo.toml", lambda _: None)
    api_of(lab).call("POST", "/v1/campaigns/away/resume")
    status = check_end(lab, "away", 240)
    assert [attempt["outcome"] for attempt in status["runs"][0]["attempts"]] == ["done"]
    assert pending_files(lab, "away") == []


@pytest.mark.timeout(400)
def test_a_bridge_that_comes_back_is_asked_again_and_a_pause_is_obeyed_meanwhile(lab: StepwiseLab) -> None:
    with ExitStack() as stack:
        with measured(lab, spec_of("patient")):
            stack.enter_context(bridge_away(lab))
        deadline = time.monotonic() + 60
        while "waiting for the trace of" not in api_of(lab).call("GET", "/v1/campaigns/patient")["step"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        api_of(lab).call("POST", "/v1/campaigns/patient/pause")
        assert wait_for_end(lab, "patient", 60)["state"] == "paused"
        api_of(lab).call("POST", "/v1/campaigns/patient/resume")
        time.sleep(2)
    status = check_end(lab, "patient", 240)
    assert [attempt["outcome"] for attempt in status["runs"][0]["attempts"]] == ["done"]


@pytest.mark.timeout(400)
def test_what_was_kept_and_cannot_be_read_is_measured_again(lab: StepwiseLab) -> None:
    with measured(lab, spec_of("damaged")):
        (name,) = pending_files(lab, "damaged")
        (lab.home / "state/orchestrator/pending/damaged" / name).write_text('{"schema_version": 1')
        kill_orchestrator(lab)
    status = check_end(lab, "damaged", 240)
    first, second = status["runs"][0]["attempts"]
    assert (first["outcome"], second["outcome"]) == ("interrupted", "done")
    assert "the orchestrator died during evaluate" in first["reason"]
    assert "what it had measured is lost" in first["reason"]
