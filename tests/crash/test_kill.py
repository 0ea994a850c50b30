"""kill -9 of orchestrator, agent and engine inside windows, `epi down` in a window, a dead meter: nothing is lost.

One lab and one campaign of one configuration, twice: the first run is hit three times, the second by a stop in order;
both must give the same answers. Every process at every boundary, against an undisturbed campaign: test_matrix.
"""

import os
import signal
from collections.abc import Iterator

import pytest

from orchestrator.local import control
from tests.crash.answers import answers, check_end
from tests.support.lab import (
    TestLab,
    process_of,
    processes_under,
    running_lab,
    short_spec,
    start_campaign,
    wait_for_end,
    wait_for_job,
)

RUN = "baseline"


@pytest.fixture(scope="module")
def lab() -> Iterator[TestLab]:
    with running_lab(demo=None) as running:
        yield running
    assert processes_under(running) == []


@pytest.mark.timeout(600)
def test_a_campaign_survives_kills_and_a_stop_in_order(lab: TestLab) -> None:
    # Windows of some seconds: a kill that is late on a busy machine still hits the job it is meant for.
    spec = short_spec("storm", RUN, repetitions=2, questions=12, decode_repeats=3)
    start_campaign(lab, spec.model_copy(update={"max_attempts": 5}))
    wait_for_job(lab, "storm", f"{RUN}/rep-1", "decode")
    os.kill(process_of(lab, "orchestrator"), signal.SIGKILL)
    control.wait_ready(lab, lab.home / "demo.toml", lambda _: None)
    wait_for_job(lab, "storm", f"{RUN}/rep-1", "decode", attempt=2)
    os.kill(process_of(lab, "node1"), signal.SIGKILL)
    wait_for_job(lab, "storm", f"{RUN}/rep-1", "score", attempt=3)
    os.kill(int((lab.node_pids("node1") / "engine.pid").read_text().split()[0]), signal.SIGKILL)
    wait_for_job(lab, "storm", f"{RUN}/rep-2", "prefill")
    kept = (lab.out / f"storm/{RUN}/epi_001.json").read_bytes()
    lab.stop()
    assert processes_under(lab) == []
    lab.start(lab.home / "demo.toml")

    first, second = [run["attempts"] for run in check_end(lab, "storm", 400)["runs"]]
    assert [attempt["outcome"] for attempt in first] == ["interrupted", "failed", "failed", "done"]
    assert "the orchestrator died during decode; its last job: node1 says it is" in first[0]["reason"]
    assert "decode on node1" in first[1]["reason"]
    assert "score on node1" in first[2]["reason"]
    assert [attempt["outcome"] for attempt in second] == ["interrupted", "done"]
    assert second[0]["reason"] == "the orchestrator was stopped in order"
    assert answers(lab, "storm", [RUN]) == answers(lab, "storm", [RUN], repetition=2)
    assert (lab.out / f"storm/{RUN}/epi_001.json").read_bytes() == kept


def test_a_dead_meter_ends_in_one_clear_message(lab: TestLab) -> None:
    """The emulator is gone for good: the campaign waits for it as long as it may, and says that the meter is silent."""
    spec = short_spec("silent", "baseline")
    spec = spec.model_copy(update={"timeouts": spec.timeouts.model_copy(update={"recover_s": 3.0})})
    target = lab.meter_link.readlink()
    lab.meter_link.unlink()
    emulator = int(next(line for line in processes_under(lab) if "meter emulate" in line).split()[0])
    os.kill(emulator, signal.SIGSTOP)
    try:
        start_campaign(lab, spec)
        status = wait_for_end(lab, "silent")
    finally:
        os.kill(emulator, signal.SIGCONT)
        lab.meter_link.symlink_to(target)
    assert status["state"] == "failed"
    assert "did not come back within 3 s: the meter is silent" in status["reason"]
