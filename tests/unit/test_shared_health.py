"""The health registry: keys, how bad it is, what is looked up, and how an earlier version's answer is read."""

import logging

import pytest

from shared.service.health import HealthRegistry, Problem
from shared.wire.health_api import health_of
from shared.wire.protocol import Health


def test_a_problem_lasts_until_it_is_taken_back() -> None:
    health = HealthRegistry()
    assert (health.status, health.problems()) == ("ok", ())
    health.set("disk", "the disk is full")
    health.set("disk", "the disk is still full")
    assert (health.status, health.problems()) == ("degraded", ("the disk is still full",))
    health.set("runner", "the runner died", failing=True)
    assert (health.status, health.problems()) == ("failing", ("the runner died", "the disk is still full"))
    health.clear("runner")
    health.clear("never reported")
    assert (health.status, health.problems()) == ("degraded", ("the disk is still full",))
    health.clear("disk")
    assert (health.status, health.problems()) == ("ok", ())


def test_what_is_cheap_to_look_up_is_looked_up_when_asked() -> None:
    missing = ["a.gguf"]
    health = HealthRegistry()
    health.watch(lambda: [Problem(f"missing: {name}") for name in missing])
    assert health_of("surgeon", "spark", health).problems == ("missing: a.gguf",)
    missing.clear()
    assert health_of("surgeon", "spark", health).status == "ok"


def test_a_problem_is_logged_when_it_begins_changes_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    health = HealthRegistry()
    with caplog.at_level(logging.INFO, logger="shared.service.health"):
        for _ in range(3):
            health.set("disk", "full")
        health.set("disk", "full", failing=True)
        health.clear("disk")
        health.clear("disk")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "problem disk: full"), ("ERROR", "problem disk: full"), ("INFO", "problem disk is over"),
    ]  # fmt: skip


@pytest.mark.parametrize(("ok", "status"), [(True, "ok"), (False, "degraded")])
def test_the_answer_of_an_earlier_version_is_read(ok: bool, status: str) -> None:
    told = {"service": "surgeon", "name": "spark", "version": "0.1.0", "utc_ns": 1, "ok": ok, "problems": []}
    assert Health.model_validate(told).status == status
