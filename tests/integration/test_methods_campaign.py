"""One campaign with every kind of variant: rankings, searches, a merge, layers, plans and a file that others cut.

Slow: searches and some twenty configurations through real agents, engines and the emulated meter.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.results.read_model import load_results
from shared.kernel.errors import ConfigurationError
from tests.support.lab import DEMO, api_of, running_lab, start_campaign, wait_for_end

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
EPI = [sys.executable, "-m", "shared.cli", "surgery"]


def surgery(*arguments: str) -> None:
    subprocess.run([*EPI, *arguments], check=True, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan of our own, and a GGUF that somebody else pruned."""
    folder = tmp_path_factory.mktemp("cut")
    surgery("convert", str(DEMO.parent / "model"), str(folder / "f16.gguf"), "--outtype", "F16")
    surgery("plan", "--model", str(folder / "f16.gguf"), "--method", "aimer", "--depth", "3", "--output",
            str(folder / "mine.json"))  # fmt: skip
    surgery("plan", "--model", str(folder / "f16.gguf"), "--method", "random", "--depth", "6", "--output",
            str(folder / "theirs.json"))  # fmt: skip
    surgery("apply", str(folder / "f16.gguf"), str(folder / "theirs.json"), str(folder / "theirs.gguf"))
    return folder


def spec_of(folder: Path) -> CampaignSpec:
    demo = tomllib.loads(DEMO.read_text())["campaign"]
    tasks = demo.pop("tasks")
    search: dict[str, Any] = {"questions": ["arc-style", "mmlu-style"], "iterations": 3, "offspring": 4}
    return CampaignSpec.model_validate(demo | {
        "schema_version": 2, "id": "methods", "repetitions": 2, "max_perplexity_ratio": 1000.0,
        "grid": {"depths": ["25%", "50%"], "methods": ["frequency", "reap"]},
        "configurations": "baseline,naee-quarter,naee-half,eep-quarter,eep-half,eep-merged,drop4_middle,layers,mine,"
                          "theirs,baseline.n1,drop50pct_all.k2",
        "variants": {
            "naee-quarter": {"experts": {"search": "naee", "drop": "25%", "reservoir": 64, "max_subsets": 200}},
            "naee-half": {"experts": {"search": "naee", "drop": "50%", "reservoir": 64, "max_subsets": 200}},
            "eep-quarter": {"experts": {"search": "eep", "drop": "25%", **search}},
            "eep-half": {"experts": {"search": "eep", "drop": "50%", **search}},
            "eep-merged": {"experts": {"search": "eep", "drop": "50%", **search, "merge": {"iterations": 2}}},
            "layers": {"experts": {"method": "reap", "drop": 4, "layers": [1, 2], "protect": {"1": [0]}}},
            "mine": {"plan": json.loads((folder / "mine.json").read_text())},
            "theirs": {"file": "theirs", "reference": "baseline"},
        },
        "accuracy": {"seed": 1, "questions": 12, "tasks": [
            {"task": tasks["mmlu_5shot"], "weight": 2}, {"task": tasks["arc_challenge_25shot"]},
            {"task": tasks["hellaswag_10shot"]}, {"task": "electrical_engineering", "weight": 0.5},
        ]},
    })  # fmt: skip


def test_every_kind_of_variant_is_measured_in_one_campaign(cut: Path) -> None:
    settings = tomllib.loads(DEMO.read_text())["lab"]
    for name, value in settings.items():
        if name.endswith(("_dir", "prompts", "_text")):
            settings[name] = str(DEMO.parent / value)
        elif name.endswith(("_files", "_dirs")):
            settings[name] = [str(DEMO.parent / one) for one in value]
    settings["questions"] = {name: str(DEMO.parent / path) for name, path in settings["questions"].items()}
    settings["models"] = {"theirs": str(cut / "theirs.gguf")}
    (cut / "demo.toml").write_text(tomli_w.dumps({"lab": settings}))
    with running_lab(cut / "demo.toml") as lab:
        wrong = spec_of(cut).model_copy(update={"id": "wrong", "method": "nonsense"})
        with pytest.raises(ConfigurationError, match="no such ranking"):
            api_of(lab).call("POST", "/v1/campaigns", wrong.model_dump(mode="json"))
        start_campaign(lab, spec_of(cut))
        wait_for_end(lab, "methods", timeout_s=1500)
        folder = lab.out / "methods"
        found = load_results(folder)
        assert not found.campaign.failures, found.campaign.failures
        ids = {item.id for item in found.configurations}
        assert ids == {
            "baseline", "baseline_biased", "drop4_all", "drop8_all", "drop4_all.reap", "drop8_all.reap", "naee-quarter",
            "naee-half", "eep-quarter", "eep-half", "eep-merged", "drop4_middle", "layers", "mine", "theirs",
            "baseline.n1", "baseline.k2", "drop8_all.k2",
        }  # fmt: skip
        runs = found.runs["eep-half"]
        assert list(runs[0].accuracy.weights.values()) == pytest.approx([2 / 4.5, 1 / 4.5, 1 / 4.5, 0.5 / 4.5])
        plans = {name: found.inputs[name][0].plan for name in ids}
        merged, layers, mine = plans["eep-merged"], plans["layers"], plans["mine"]
        assert merged is not None and merged.merge is not None and merged.method == "eep_prune_and_merge"
        assert layers is not None and [len(kept) for kept in layers.kept].count(12) == 2 and 0 in layers.kept[1]
        assert mine is not None and mine.method == "aimer" and plans["theirs"] is None
        assert found.results["theirs"].reference_id == "baseline"
