"""Campaigns in which nodes, engine, K and quantisation vary: every part is real but `dllama`, our stand-in."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.results.read_model import load_results
from shared.kernel.errors import ConfigurationError
from tests.support.engine_lab import dllama_program
from tests.support.lab import DEMO, TestLab, quick_spec, running_lab, start_campaign, wait_for_end
from tests.support.node_tiny_model import write_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MATRIX = "baseline.n2,baseline.n1.k2,baseline.q8_0.on-pair,drop2_all.dllama.n2"


def spec_of(identity: str, configurations: str, **changes: object) -> CampaignSpec:
    spec = quick_spec(identity, "baseline", questions=6).model_dump()
    for workload in (spec["windows"]["prefill"], spec["windows"]["decode"]):
        workload |= {"prompts": 2, "repeats": 2, "tokens_each": 48}
    return CampaignSpec.model_validate({**spec, "configurations": configurations, **changes})


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("programs")
    program = dllama_program(folder, real=False)
    before, os.environ["PATH"] = os.environ["PATH"], f"{program.parent}:{os.environ['PATH']}"
    try:
        with running_lab() as lab:
            start_campaign(lab, spec_of("topology", MATRIX, node_sets={"pair": ["node3", "node2"]}))
            status = wait_for_end(lab, "topology", 800)
            assert status["state"] == "finished", status["reason"]
            start_campaign(lab, spec_of("wide", "baseline.dllama"))
            refused = wait_for_end(lab, "wide")
            assert refused["state"] == "failed" and "at most 2 nodes" in refused["reason"], refused["reason"]
            yield lab.out / "topology"
    finally:
        os.environ["PATH"] = before


def result(campaign: Path, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((campaign / name / "epi_001.json").read_text())
    return loaded


def test_every_serving_has_its_own_figures(campaign: Path) -> None:
    found = {item.id: item for item in load_results(campaign).configurations}
    assert list(found) == [
        "baseline", "baseline.dllama.n2", "baseline.n1.k2", "baseline.n2", "baseline.q8_0.on-pair",
        "drop2_all.dllama.n2",
    ]  # fmt: skip
    nodes = {name: result(campaign, name)["serving_detail"]["nodes"] for name in found}
    assert nodes["baseline"] is None and nodes["baseline.n2"] == ["node1", "node2"]
    assert nodes["baseline.q8_0.on-pair"] == ["node3", "node2"]
    for name in found:
        power = result(campaign, name)["evaluation"]["windows"][0]["nodes"]
        assert set(power) == set(nodes[name] or ["node1", "node2", "node3", "node4"]), name


def test_each_figure_says_its_engine(campaign: Path) -> None:
    windows = result(campaign, "drop2_all.dllama.n2")["provenance"]["windows"]
    assert {label: one["engine"] for label, one in windows.items()} == {
        **dict.fromkeys(("idle", "prefill", "decode"), "distributed-llama"), "score": "llama.cpp",
    }  # fmt: skip
    assert windows["decode"]["model_sha256"] != windows["score"]["model_sha256"]
    assert result(campaign, "baseline")["provenance"]["windows"]["decode"]["engine"] == "llama.cpp"
    assert "distributed-llama" in result(campaign, "baseline.dllama.n2")["run_metadata"]["distributed_llama_version"]


def test_workloads_are_the_same_whatever_the_engine(campaign: Path) -> None:
    one, two = (result(campaign, name)["evaluation"]["phases"] for name in ("baseline", "baseline.dllama.n2"))
    assert one["prefill"]["ledger"] == two["prefill"]["ledger"]
    assert one["decode"]["ledger"]["generated"] == two["decode"]["ledger"]["generated"]
    run = json.loads((campaign / "baseline.dllama.n2" / "run_001.json").read_text())
    labels = [window["label"] for window in run["windows"]]
    assert labels.count("decode") == labels.count("prefill") == 4, "one request a job"


def test_comparisons_are_with_the_same_serving(campaign: Path) -> None:
    results = load_results(campaign).results
    assert results["drop2_all.dllama.n2"].reference_id == "baseline.dllama.n2"
    assert results["baseline.dllama.n2"].reference_id == "baseline"
    assert results["baseline.n1.k2"].reference_id == "baseline"
    assert result(campaign, "baseline.n2")["accuracy"] == result(campaign, "baseline")["accuracy"]


def test_a_dense_model_is_a_baseline_and_its_surgery_is_refused(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "dense.gguf", n_experts=0)
    text = DEMO.read_text().replace('model_dir = "model"', f'model_dir = "{model}"')
    for name in ("calibration/statements.txt", "calibration/questions.txt", "calibration/stories.txt",
                 "sanity_prompts.jsonl", "heldout.txt", "tasks", "workload_prompts.txt"):  # fmt: skip
        text = text.replace(f'"{name}"', f'"{DEMO.parent / name}"')
    demo = tmp_path / "dense.toml"
    demo.write_text(text)
    with running_lab(demo) as lab:
        measured(lab)


def measured(lab: TestLab) -> None:
    with pytest.raises(
        ConfigurationError, match=r"can only be measured as it is: a dense model \(qwen3\): there are no"
    ):
        start_campaign(lab, spec_of("cut", "drop2_all", quantization="F32"))
    start_campaign(lab, spec_of("dense", "baseline,baseline.n2", quantization="F32"))
    status = wait_for_end(lab, "dense", 400)
    assert status["state"] == "finished", status["reason"]
    found = result(lab.out / "dense", "baseline")
    assert found["energy"]["joules_per_token"] > 0 and found["surgery_detail"]["experts_dropped"] is None
