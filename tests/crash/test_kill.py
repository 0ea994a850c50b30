"""kill -9 of orchestrator, agent and engine inside windows: the campaign ends with identical scores."""

import os
import signal
from pathlib import Path

from orchestrator.local import control
from tests.crash.answers import answers
from tests.lab import (
    DEMO,
    api_of,
    process_of,
    processes_under,
    quick_spec,
    running_lab,
    start_campaign,
    wait_for_end,
    wait_for_step,
)

CONFIGURATIONS = ("baseline", "drop2_all", "drop4_all")


def test_a_campaign_survives_kill_9_of_orchestrator_agent_and_engine() -> None:
    with running_lab() as lab:
        start_campaign(lab, quick_spec("calm", ",".join(CONFIGURATIONS)))
        calm = wait_for_end(lab, "calm")
        assert calm["state"] == "finished", calm["reason"]

        start_campaign(lab, quick_spec("stormy", ",".join(CONFIGURATIONS)))
        wait_for_step(lab, "stormy", "baseline/rep-1", "decode")
        os.kill(process_of(lab, "orchestrator"), signal.SIGKILL)
        control.wait_ready(lab, DEMO, lambda _: None)
        wait_for_step(lab, "stormy", "drop2_all/rep-1", "decode")
        os.kill(process_of(lab, "node1"), signal.SIGKILL)
        wait_for_step(lab, "stormy", "drop4_all/rep-1", "score")
        os.kill(int((lab.node_pids("node1") / "engine.pid").read_text().split()[0]), signal.SIGKILL)

        status = wait_for_end(lab, "stormy")
        assert status["state"] == "finished", status["reason"]
        outcomes = [[(a["outcome"]) for a in run["attempts"]] for run in status["runs"]]
        assert outcomes[0] == ["interrupted", "done"]
        assert outcomes[1] == ["failed", "done"]
        assert outcomes[2] == ["failed", "done"]
        assert all(a["reason"] for run in status["runs"] for a in run["attempts"] if a["outcome"] != "done")
        assert answers(lab, "stormy", CONFIGURATIONS) == answers(lab, "calm", CONFIGURATIONS)
    assert processes_under(lab) == []


def test_a_stopped_lab_goes_on_where_it_was() -> None:
    """`epi down` in a window leaves no process; after `epi up` the campaign ends and keeps what was measured."""
    with running_lab() as lab:
        start_campaign(lab, quick_spec("camp", "baseline,drop4_all"))
        wait_for_step(lab, "camp", "drop4_all/rep-1", "prefill")
        kept = (lab.out / "camp/baseline/epi_001.json").read_bytes()
        lab.stop()
        assert processes_under(lab) == []
        lab.start()
        status = wait_for_end(lab, "camp")
        assert status["state"] == "finished", status["reason"]
        assert (lab.out / "camp/baseline/epi_001.json").read_bytes() == kept
        last = api_of(lab).call("GET", "/v1/campaigns/camp/runs/drop4_all/1")
        assert [a["outcome"] for a in last["status"]["attempts"]] == ["interrupted", "done"]


def test_a_dead_meter_ends_in_one_clear_message(tmp_path: Path) -> None:
    """The emulator is gone for good: the campaign stops after its attempts and says that the meter is silent."""
    with running_lab() as lab:
        spec = quick_spec("camp", "baseline").model_copy(update={"max_attempts": 2})
        lab.meter_link.unlink()
        supervisor_child = next(line for line in processes_under(lab) if "meter emulate" in line)
        os.kill(int(supervisor_child.split()[0]), signal.SIGSTOP)
        try:
            start_campaign(lab, spec)
            status = wait_for_end(lab, "camp")
        finally:
            os.kill(int(supervisor_child.split()[0]), signal.SIGCONT)
        assert status["state"] == "failed"
        assert "meter is silent" in status["reason"]
