"""A program that computes beside a real campaign: its windows say so, by name and share, and so does the report."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from orchestrator.domain.run.records import RULES_VERSION, RunInput
from orchestrator.results.read_model import load_results
from tests.support.lab import TestLab, api_of, running_lab, short_spec, start_campaign, wait_for_end

LABELS = ["idle", "marker", "prefill", "decode", "score"]


@pytest.fixture(scope="module")
def lab() -> Iterator[TestLab]:
    with running_lab(demo=None) as running:
        yield running


@contextmanager
def somebody_computes() -> Iterator[int]:
    burn = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    try:
        yield burn.pid
    finally:
        burn.kill()
        burn.wait()


def test_a_program_beside_the_engine_is_named_for_each_window(lab: TestLab) -> None:
    spec = short_spec("beside", "baseline")
    rules = spec.rules.model_copy(update={"max_foreign_cpu_share": 0.02})
    with somebody_computes() as pid:
        start_campaign(lab, spec.model_copy(update={"rules": rules}))
        assert wait_for_end(lab, "beside")["state"] == "finished"
    run = RunInput.model_validate_json((lab.out / "beside/baseline/run_001.json").read_text())
    assert run.rules_version == RULES_VERSION
    assert [window.label for window in run.window_loads] == LABELS
    for window in run.window_loads:
        assert sorted(window.nodes) == ["node1", "node2", "node3", "node4"]
        for load in window.nodes.values():
            assert pid in {one.pid for one in load.foreign}, window.label
    assert sorted(run.clocks) == ["node1", "node2", "node3", "node4"]
    assert all(abs(clock.drift_s) < 1 for clock in run.clocks.values()), "one machine has one clock"
    validity = load_results(lab.out / "beside").runs["baseline"][0].validity
    told = [one for one in validity.findings if one.rule == "foreign_load"]
    nodes = " ".join(sorted(run.window_loads[0].nodes))  # of one machine: said once
    assert {one.where for one in told} >= {f"{nodes}, {label}" for label in ("prefill", "decode")}
    assert all("other programs used" in one.reason for one in told)  # which three, other work on this machine decides
    names = [name for window in run.window_loads for load in window.nodes.values() for name in load.foreign]
    assert not any("rpc" in one.name for one in names)
    detail = api_of(lab).call("GET", "/v1/campaigns/beside/runs/baseline/1")
    shown = {one["label"]: one["nodes"]["node2"] for one in detail["other_load"]}
    assert list(shown) == LABELS and any(f"pid {pid}" in name for name, _ in shown["decode"]["programs"])
    report = (lab.out / "beside/report.md").read_text()
    assert "others' CPU, cores" in report
    assert len(re.findall(r"FLAG foreign\\?_load \\?\(decode", report)) == 1
    activity = [load.agent_cpu_s / load.duration_s for window in run.window_loads for load in window.nodes.values()]
    print("agents inside windows, share of a core:", json.dumps([round(one, 5) for one in activity]))
