"""Idle connections to real workers' ports: before a load, while one is under way, and between windows.

A worker serves one client at a time: before strangers were looked for, one ended a campaign after three attempts.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil
import pytest

from node_agent.settings import NodeSettings
from orchestrator.local.layout import LocalLab
from shared.kernel.settings import load_settings
from tests.support.lab import TestLab, api_of, running_lab, short_spec, start_campaign, wait_for_end, wait_for_step


@pytest.fixture(scope="module")
def lab() -> Iterator[TestLab]:
    with running_lab(demo=None) as running:
        start_campaign(running, short_spec("calm", "baseline"))
        assert wait_for_end(running, "calm")["state"] == "finished"
        yield running


def port_of(lab: LocalLab, node: str) -> int:
    return load_settings(NodeSettings, lab.config_file(node)).worker_port


@contextmanager
def idle_connection(lab: LocalLab, node: str) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port_of(lab, node)), timeout=10) as stranger:
        yield stranger


@contextmanager
def coming_back(lab: LocalLab, node: str) -> Iterator[None]:
    """Connect again whenever the connection ends, as a broken probe does."""
    over = threading.Event()

    def connect() -> None:
        while not over.wait(0.002):
            with suppress(OSError), idle_connection(lab, node) as one:
                one.settimeout(0.2)
                while not over.is_set():
                    with suppress(TimeoutError):
                        if one.recv(1) == b"":
                            break

    threads = [threading.Thread(target=connect) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_one_that_is_there_before_the_load_is_thrown_out(lab: TestLab) -> None:
    with idle_connection(lab, "node3") as stranger:
        start_campaign(lab, short_spec("before", "baseline"))
        status = wait_for_end(lab, "before", 120)
        stranger.settimeout(5)
        with suppress(ConnectionError):
            assert stranger.recv(1) == b"", "its worker has ended"
    assert status["state"] == "finished", status["reason"]
    assert [attempt["outcome"] for attempt in status["runs"][0]["attempts"]] == ["done"]


def test_one_that_comes_between_windows_waits_and_is_found_before_the_next_load(lab: TestLab) -> None:
    with ExitStack() as stack:
        start_campaign(lab, short_spec("between", "baseline", repetitions=2))
        wait_for_step(lab, "between", "baseline/rep-1", "prefill")
        for node in ("node1", "node3"):
            stack.enter_context(idle_connection(lab, node))
        status = wait_for_end(lab, "between", 120)
    assert status["state"] == "finished", status["reason"]
    assert [len(run["attempts"]) for run in status["runs"]] == [1, 1]
    log = (lab.log_dir / "orchestrator.log").read_text()
    assert "the workers are started anew" in log
    assert f"pid {psutil.Process().pid})" in log, "and who it was"


def test_one_that_connects_while_the_engine_loads_costs_an_attempt_at_most(lab: TestLab) -> None:
    start_campaign(lab, short_spec("during", "baseline"))
    wait_for_step(lab, "during", "baseline/rep-1", "start_engine")
    with ExitStack() as stack:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:  # whenever the port takes one
            with suppress(OSError):
                stack.enter_context(idle_connection(lab, "node2"))
            time.sleep(0.02)
        status = wait_for_end(lab, "during", 200)
    assert status["state"] == "finished", status["reason"]
    for attempt in status["runs"][0]["attempts"][:-1]:
        assert "somebody else holds a worker" in attempt["reason"], attempt


def test_one_that_keeps_coming_back_is_named_in_the_reason_and_in_the_health(lab: TestLab) -> None:
    spec = short_spec("stubborn", "baseline").model_copy(update={"max_attempts": 1})
    with coming_back(lab, "node4"):
        start_campaign(lab, spec)
        status = wait_for_end(lab, "stubborn", 120)
    health = api_of(lab).call("GET", "/v1/health")
    assert status["state"] == "failed"
    assert "node4's worker is connected to 127.0.0.1:" in status["reason"]
    assert f"pid {psutil.Process().pid})" in status["reason"]
    assert health["status"] == "degraded" and "node4's worker" in health["problems"][0]
    start_campaign(lab, short_spec("again", "baseline"))
    assert wait_for_end(lab, "again")["state"] == "finished"
    assert api_of(lab).call("GET", "/v1/health")["problems"] == []
