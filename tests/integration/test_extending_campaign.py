"""A kind of surgery that a stranger's package brings is measured by a campaign on the embedded model.

Slow: a whole campaign through real agents, engines and the emulated meter.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.results.read_model import load_results
from shared.kernel.errors import ConfigurationError
from tests.integration.test_extending import install_documented
from tests.support.lab import api_of, running_lab, short_spec, small_demo, start_campaign, wait_for_end

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DROP: dict[str, Any] = {"kind": "drop_layers", "count": 1}
PRUNE: dict[str, Any] = {"kind": "prune_experts", "drop": 4}


def spec_with(variants: dict[str, Any], campaign_id: str = "strange") -> CampaignSpec:
    fields = short_spec(campaign_id, "baseline").model_dump(mode="json", exclude={"tasks", "configurations"})
    accuracy = short_spec(campaign_id, "baseline").intelligence.model_dump(mode="json", exclude_none=True)
    known = {name: value for name, value in fields.items() if value is not None}
    return CampaignSpec.model_validate(known | {
        "schema_version": 2, "accuracy": accuracy | {"where": "cluster"}, "max_perplexity_ratio": 1e6,
        "configurations": ",".join(["baseline", *variants]), "variants": variants,
    })  # fmt: skip


def test_kinds_and_searches_of_others_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tmp_path / "site"
    packages.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(packages), prepend=":")
    install_documented("A kind of surgery", packages)
    install_documented("A search", packages)
    with running_lab(small_demo(tmp_path)) as lab:
        for name, variants, says in (
            ("unknown", {"v": {"surgeries": [{"kind": "lobotomy"}]}}, "unknown kind of surgery 'lobotomy'"),
            ("value", {"v": {"surgeries": [DROP | {"count": 0}]}}, "surgery 1.*count"),
            ("many", {"v": {"surgeries": [PRUNE, DROP | {"count": 999}]}}, "surgery 2.*999 of"),
            ("quantised", {"v": {"surgeries": [DROP, {"kind": "quantize"}]}}, "Q4_K_M already"),
            ("left", {"v": {"base": "f16", "surgeries": [DROP]}}, "leave F16.*end with quantize"),
            ("starts", {"v": {"experts": {"search": "k_centre", "drop": 4, "starts": 0}}}, "surgery 1.*starts"),
        ):
            wrong = spec_with(variants, name).model_dump(mode="json")
            with pytest.raises(ConfigurationError, match=says):
                api_of(lab).call("POST", "/v1/campaigns", wrong)
        start_campaign(lab, spec_with({
            "shorter": {"surgeries": [DROP]},
            "shorter-cut": {"base": "f16", "surgeries": [
                DROP, PRUNE, {"kind": "quantize", "quantization": "Q4_K_M"},
            ]},
            "told": {"surgeries": [PRUNE, {"kind": "experts_per_token", "k": 1}]},
            "centres": {"experts": {"search": "k_centre", "drop": 4, "starts": 2}},
        }))  # fmt: skip
        wait_for_end(lab, "strange", timeout_s=600)
        found = load_results(lab.out / "strange")
        assert not found.campaign.failures, found.campaign.failures
        inputs = {name: runs[0] for name, runs in found.inputs.items()}
        for name in ("shorter", "shorter-cut"):
            done = inputs[name].surgeries
            assert done is not None and done.brought_by == {"drop_layers": "drop_layers_kind 1.0"}
            assert done.proved_bytes > 1_000_000 and inputs[name].plan is None
            (published,) = (lab.out / "strange").rglob(f"{name}/**/epi_001.json")
            detail = json.loads(published.read_text())["surgery_detail"]
            assert detail["surgeries_sha256"] == done.sha256 and detail["surgeries"][0] == "drop_layers"
        cut = inputs["shorter-cut"].surgeries
        assert cut is not None and [one.kind for one in cut.surgeries] == ["drop_layers", "plan", "quantize"]
        layers = {name: len(inputs[name].plan.kept) for name in ("told", "centres")}  # type: ignore[union-attr]
        decided: Any = cut.surgeries[1].model_dump()["plan"]
        assert len(decided["kept"]) == layers["centres"] - 1, "ranked on the model that had lost a layer"
        told, centres = inputs["told"].plan, inputs["centres"].plan
        assert told is not None and told.experts_per_token == 1, "a list that is one plan is a plan, which nodes apply"
        assert inputs["told"].deliveries["node1"].method == "plan"
        assert centres is not None and (centres.method, centres.parameters["starts"]) == ("k_centre", 2)
        assert inputs["centres"].surgeries is None
