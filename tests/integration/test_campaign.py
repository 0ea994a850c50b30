"""A small campaign through all real parts, judged from its files alone by calculations that import nothing of ours."""

import csv
import json
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain.campaign.steady_state import SteadyStateSpec
from shared.kernel.build import SoftwareBuild, software_build
from shared.llama.build import EngineBuild
from shared.wire.node_jobs.host import SteadyGateParams
from tests.support.lab import TestLab, quick_spec, running_lab, start_campaign, wait_for_end


@pytest.fixture(scope="module")
def lab() -> Iterator[TestLab]:
    """A lab of its own: which model its nodes have, and how it came to them, is part of what is judged."""
    with running_lab() as running:
        yield running


@pytest.fixture(scope="module")
def campaign(lab: TestLab) -> Path:
    """Run the baseline with decode windows of one and of two lengths."""
    once = quick_spec("once", "baseline", questions=12)
    decode = once.windows.decode
    # A gate that nothing passes on so short a span: its ceiling ends the wait, not the run.
    gate = SteadyGateParams(min_s=0, max_s=1.5, span_s=1.0, every_s=0.2, max_busy=1e-9, max_power_change=1e-9)
    windows = once.windows.model_copy(
        update={
            "decode": decode.model_copy(update={"repeats": 2 * decode.repeats}),
            "steady_state": SteadyStateSpec(mode="both", fixed_s=1.0, steady=gate),
        }
    )
    for spec in (once, once.model_copy(update={"id": "twice", "windows": windows})):
        start_campaign(lab, spec)
        status = wait_for_end(lab, spec.id)
        assert status["state"] == "finished", status["reason"]
    return lab.out


def load(folder: Path, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / name).read_text())
    return loaded


def nanoseconds(text: str) -> int:
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return seconds * 10**9 + int(fraction.ljust(9, "0"))


def energy_j(folder: Path, start_ns: int, end_ns: int) -> float:
    """Integrate the CSV by trapezoids over [start, end), interpolated at both edges."""
    by_node: dict[str, list[tuple[int, float]]] = {}
    with (folder / "power_trace_001.csv").open() as file:
        for row in csv.DictReader(file):
            by_node.setdefault(row["node"], []).append((nanoseconds(row["timestamp"]), float(row["watts"])))
    total = 0.0
    for points in by_node.values():
        for (t0, p0), (t1, p1) in pairwise(points):
            a, b = max(t0, start_ns), min(t1, end_ns)
            if a < b:
                slope = (p1 - p0) / (t1 - t0)
                total += (p0 + slope * (a - t0) + p0 + slope * (b - t0)) / 2 * (b - a) / 1e9
    return total


def decode_window(result: dict[str, Any]) -> dict[str, Any]:
    return next(window for window in result["evaluation"]["windows"] if window["label"] == "decode")


def test_epi_is_recomputed_from_the_files_alone(campaign: Path) -> None:
    folder = campaign / "once" / "baseline"
    result = load(folder, "epi_001.json")
    window = decode_window(result)
    joules = energy_j(folder, window["start_utc_ns"], window["end_utc_ns"])
    tokens = window["ledger"]["generated"]
    answers = load(folder, "benchmark_001.json")["questions"]
    shares = []
    for field, task in result["accuracy_detail"]["tasks"].items():
        marks = [answer["correct"] for answer in answers if answer["task"] in task["tasks"]]
        assert len(marks) == 12
        shares.append(sum(marks) / len(marks))
        assert result["accuracy"][field] == shares[-1]
    epi = joules / tokens / (sum(shares) / 3)
    assert result["epi"]["value"] == pytest.approx(epi, rel=1e-9)
    assert result["energy"]["total_joules"] == pytest.approx(joules, rel=1e-9)


def test_twice_the_tokens_cost_about_twice_the_dynamic_energy(campaign: Path) -> None:
    dynamic, tokens = [], []
    for name in ("once", "twice"):
        result = load(campaign / name / "baseline", "epi_001.json")
        dynamic.append(result["evaluation"]["net_joules_per_token"] * result["energy"]["total_tokens"])
        tokens.append(result["energy"]["total_tokens"])
    assert tokens[1] == 2 * tokens[0]
    assert 1.5 < dynamic[1] / dynamic[0] < 2.6


def test_a_result_says_what_every_agent_ran(campaign: Path) -> None:
    build = software_build()
    head = load(campaign / "once", "campaign.json")
    for provenance in (head, load(campaign / "once" / "baseline", "epi_001.json")["provenance"]):
        assert set(provenance["software"]) == {"orchestrator", "surgeon", "meter", "node1", "node2", "node3", "node4"}
        assert {SoftwareBuild.model_validate(one).code_sha256 for one in provenance["software"].values()} == {
            build.code_sha256
        }
        engines = {name: EngineBuild.model_validate(one) for name, one in provenance["engines"].items()}
        assert set(engines) == {"node1", "node2", "node3", "node4"}
        assert all(one.rpc and one.ggml_commit and one.features for one in engines.values())
    assert load(campaign / "once" / "baseline", "run_001.json")["provenance"]["epi_factory_version"] == str(build)


def test_the_wait_before_the_first_window_is_recorded(campaign: Path) -> None:
    fixed = load(campaign / "once" / "baseline", "run_001.json")["steady_state"]
    assert (fixed["mode"], fixed["steady"], fixed["nodes"]) == ("fixed", None, {})
    run = load(campaign / "twice" / "baseline", "run_001.json")
    gated = run["steady_state"]
    assert gated["steady"] is False and gated["reasons"] and set(gated["nodes"]) == {"node1", "node2", "node3", "node4"}
    assert set(gated["power_change"]) == set(gated["nodes"])
    assert gated["end_utc_ns"] <= run["windows"][0]["start_utc_ns"]
    assert 1.5 <= (gated["end_utc_ns"] - gated["start_utc_ns"]) / 1e9 < 30, "the ceiling holds"
    flags = load(campaign / "twice" / "baseline", "epi_001.json")["evaluation"]["validity"]["findings"]
    assert any(flag["rule"] == "steady" and flag["verdict"] == "FLAG" for flag in flags)


def test_the_model_came_in_the_cheapest_way_and_its_bytes_are_told(campaign: Path) -> None:
    """The base crosses the net once; `baseline` is the base itself, so that nothing is sent for it."""
    base = load(campaign / "once", "campaign.json")["base_deliveries"]
    assert set(base) == {"node1"}, "only the root reads model files"
    assert (base["node1"]["method"], base["node1"]["bytes_received"]) == ("http", base["node1"]["size_bytes"])
    assert load(campaign / "twice", "campaign.json")["base_deliveries"]["node1"]["method"] == "here"
    run = load(campaign / "once" / "baseline", "run_001.json")
    assert run["deliveries"]["node1"]["sha256"] == run["provenance"]["model_sha256"]
    assert (run["deliveries"]["node1"]["method"], run["deliveries"]["node1"]["bytes_received"]) == ("here", 0)
    assert "| base model | node1 | http | 1 |" in (campaign / "once" / "report.md").read_text()


def test_the_proof_of_silence_is_stored_with_the_run(campaign: Path) -> None:
    run = load(campaign / "once" / "baseline", "run_001.json")
    assert set(run["agent_activity"]) == {"node1", "node2", "node3", "node4"}
    assert set(run["window_agent_activity"]) == {"prefill", "decode", "score"}
    others = [activity for node, activity in run["agent_activity"].items() if node != "node1"]
    for activity in (*run["window_agent_activity"].values(), *others):
        assert activity["agent_written_bytes"] == 0
    assert run["calibrated_utc_ns"] is None and run["environment"]["ambient_humidity_percent"] is None


def test_the_published_schema_is_there_and_nothing_is_invented(campaign: Path) -> None:
    result = load(campaign / "once" / "baseline", "epi_001.json")
    assert set(result) >= {
        "model", "quantization", "surgery", "hardware", "instrument", "measurement_point", "environment", "energy",
        "accuracy", "epi", "run_metadata", "token_basis", "evaluation", "provenance",
    }  # fmt: skip
    assert result["emulated"] is True
    assert result["environment"]["ambient_temp_c"] is None
    assert result["run_metadata"]["distributed_llama_version"] is None
    assert result["token_basis"] == "decode_generated"
    assert "not the benchmarks" in result["accuracy_detail"]["note"]
    for name in ("summary.md", "epi_curve.svg", "epi_curve.png", "campaign.json"):
        assert (campaign / "once" / name).stat().st_size > 0
    assert "emulated" in (campaign / "once" / "summary.md").read_text().lower()


def test_ledgers_are_exact(campaign: Path) -> None:
    result = load(campaign / "once" / "baseline", "epi_001.json")
    windows = load(campaign / "once" / "baseline", "run_001.json")["windows"]
    by_label = {window["label"]: window["ledger"] for window in windows}
    assert by_label["prefill"] == {"generated": 0, "prompt": 384 * 8 * 3, "cached": 0, "scored": 0}
    assert by_label["decode"]["generated"] == 48 * 8
    assert by_label["idle"] == {"generated": 0, "prompt": 0, "cached": 0, "scored": 0}
    assert by_label["score"]["generated"] == 0 and by_label["score"]["scored"] > 0
    assert result["evaluation"]["phases"]["decode"]["ledger"] == by_label["decode"]
