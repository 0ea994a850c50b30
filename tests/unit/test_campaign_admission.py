"""Forty wrong specs against what a real surgeon says of the demo: each is refused with its field, before any work."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.campaign.admission import check_tasks, held_against
from orchestrator.domain.campaign.schedule import configurations_of
from orchestrator.domain.campaign.spec import CampaignSpec
from shared.kernel.errors import ConfigurationError, EpiError
from shared.kernel.records import SurgeryPlan
from shared.wire.surgeon_catalogue import Catalogue
from surgeon.catalogue import CatalogueReader
from surgeon.settings import QuestionFile, SurgeonSettings

DEMO = Path(__file__).parents[2] / "demo"
NODES = ["node1", "node2", "node3", "node4"]
TASK_DIRS = (DEMO / "tasks",)
SPEC: dict[str, Any] = {
    "schema_version": 2, "id": "wrong", "model": "demo", "corpus": "demo", "configurations": "baseline,drop4_all",
    "accuracy": {"tasks": [{"task": "demo_arc_style_5shot"}]},
}  # fmt: skip


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    settings = SurgeonSettings(
        name="surgeon", port=1, state_dir=tmp_path_factory.mktemp("surgeon"),
        models={"demo": DEMO / "model", "gone": DEMO / "nowhere"},
        corpora={"demo": (DEMO / "calibration/stories.txt", DEMO / "calibration/questions.txt")},
        questions={"arc": QuestionFile(path=DEMO / "tasks/data/arc_style.jsonl")},
    )  # fmt: skip
    return asyncio.run(CatalogueReader(settings).read())


def variant(table: dict[str, Any]) -> dict[str, Any]:
    return {"configurations": "v", "variants": {"v": table}}


def plan(n_layers: int = 8, n_experts: int = 16, keep: int = 12) -> dict[str, Any]:
    return {"plan": SurgeryPlan(n_experts=n_experts, kept=(tuple(range(keep)),) * n_layers).model_dump(mode="json")}


def test_the_catalogue_says_what_the_model_is(catalogue: Catalogue) -> None:
    model = catalogue.model("demo")
    assert model is not None and model.layouts == ("uniform", "biased") and not model.problem
    assert model.n_experts > model.experts_per_token >= 1 and model.n_layers >= 3
    assert catalogue.corpora == {"demo": ("stories", "questions")} and catalogue.questions == ("arc",)
    gone = catalogue.model("gone")
    assert gone is not None and "cannot be read" in gone.problem


def test_a_right_spec_gets_the_models_shape_and_runs(catalogue: Catalogue) -> None:
    right = SPEC | {
        "configurations": "drop25pct_all,drop2_middle.reap,drop4_late,half,baseline.n1.k2,drop50pct_all.q8_0",
        "variants": {"half": {"experts": {"search": "eep", "drop": "50%", "questions": ["arc"], "merge": True}}},
    }
    admitted = held_against(CampaignSpec.model_validate(right), catalogue, NODES)
    assert admitted.model_shape is not None and admitted.left_out is None
    assert admitted.spec_hash() == CampaignSpec.model_validate(right).spec_hash()
    assert "half" in {one.id for one in configurations_of(admitted)}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": "qwen"}, "model"),
    ({"model": "gone"}, "model"),
    ({"model": "Demo Model"}, "model"),
    ({"corpus": "wikitext"}, "corpus"),
    ({"method": "nonsense"}, "method"),
    ({"method": "naee"}, "method"),
    ({"configurations": "drop16_all"}, "drop16_all"),
    ({"configurations": "drop99pct_all"}, "drop99pct_all"),
    ({"configurations": "drop15_all"}, "drop15_all"),
    ({"configurations": "drop4_all.nonsense"}, "drop4_all.nonsense"),
    ({"configurations": "drop4_all.eep"}, "drop4_all.eep"),
    ({"configurations": "drop4_sideways"}, "drop4_sideways"),
    ({"configurations": "drop4_all.n5"}, "drop4_all.n5"),
    ({"configurations": "drop4_all.on-kitchen"}, "drop4_all.on-kitchen"),
    ({"configurations": "drop4_all.k64"}, "drop4_all.k64"),
    ({"configurations": "drop4_all.q4_q"}, "drop4_all.q4_q"),
    ({"configurations": "drop4_late.dllama"}, "drop4_late.dllama"),
    ({"configurations": "baseline.n3.dllama"}, "baseline.n3.dllama"),
    ({"configurations": "unknown-variant"}, "unknown-variant"),
    ({"configurations": ""}, "configurations"),
    ({"quantization": "Q4_Z"}, "Q4_Z"),
    ({"grid": {"depths": []}}, "grid.depths"),
    ({"grid": {"depths": ["many"]}}, "grid.depths"),
    ({"grid": {"depths": [4], "methods": ["nonsense"]}}, "drop4_all.nonsense"),
    ({"grid": {"depths": [4], "layers": ["deep"]}}, "grid.layers"),
    ({"grid": {"depths": [200]}}, "drop200_all"),
    (variant({"experts": {"method": "nonsense", "drop": 4}}), "variants.v.method"),
    (variant({"experts": {"drop": 4, "layers": [3, 99]}}), "variants.v.layers"),
    (variant({"experts": {"drop": 4, "protect": {"99": [1]}}}), "variants.v.protect"),
    (variant({"experts": {"drop": 4, "protect": {"0": [99]}}}), "variants.v.protect.0"),
    (variant({"experts": {"keep": [8, 8]}}), "variants.v.keep"),
    (variant({"experts": {"drop": 4, "domain_weights": {"poems": 1}}}), "variants.v.domain_weights"),
    (variant({"experts": {"search": "eep", "drop": "50%", "questions": ["mmlu"]}}), "variants.v.questions"),
    (variant({"experts": {"search": "naee", "drop": "99%"}}), "v"),
    (variant({"experts": {"search": "eep", "drop": 4}}), "variants.v.questions"),
    (variant({"experts": {"search": "naee", "drop": 4, "questions": ["arc"]}}), "variants.v.questions"),
    (variant({"experts": {"search": "genetic", "drop": 4}}), "variants.v.search"),
    (variant({"experts": {"search": "eep_merge", "drop": 4, "questions": ["arc"]}}), "variants.v.search"),
    (variant({"experts": {"search": "naee", "drop": 4, "subsets": 5}}), "variants.v.subsets"),
    (variant({"experts": {"drop": 4, "parameters": {"prior": 5}}}), "variants.v.parameters.prior"),
    (variant(plan(n_layers=3)), "variants.v.plan"),
    (variant(plan(n_experts=20)), "variants.v.plan"),
    (variant(plan(keep=1)), "variants.v.plan"),
    (variant({"file": "theirs", "reference": "baseline"}), "variants.v.file"),
    (variant({"file": "gone", "reference": "baseline"}), "variants.v.file"),
    ({"accuracy": {"tasks": [{"task": "mmlu_pro_max"}]}}, "mmlu_pro_max"),
    ({"accuracy": {"tasks": [{"task": "../../etc/passwd"}]}}, "accuracy.tasks"),
    ({"accuracy": {"tasks": [{"task": "demo_arc_style_5shot", "accuracy_field": "mmlu_5shot"}]}}, "accuracy.tasks"),
    ({"accuracy": {"tasks": [{"task": "demo_arc_style_5shot", "weight": 0}]}}, "accuracy"),
    ({"skip_impossible": True, "schema_version": 1}, "schema_version = 2"),
]


def test_there_are_forty() -> None:
    assert len(WRONG) >= 40


@pytest.mark.parametrize(("change", "field"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wrong_spec_is_refused_before_any_job(catalogue: Catalogue, change: dict[str, Any], field: str) -> None:
    with pytest.raises((EpiError, ValidationError)) as refused:
        spec = CampaignSpec.model_validate(SPEC | change)
        configurations_of(held_against(spec, catalogue, NODES))
        check_tasks(spec, TASK_DIRS)
    error = refused.value
    if isinstance(error, EpiError):
        assert isinstance(error, ConfigurationError) or "task" in error.message
        assert field in f"{error.where} {error.message} {error.hint}"
    else:
        assert isinstance(error, ValidationError)
        first = error.errors()[0]
        assert field in ".".join(map(str, first["loc"])) + str(first["msg"])


def test_what_cannot_run_is_left_out_when_the_user_says_so(catalogue: Catalogue) -> None:
    many = SPEC | {"configurations": "baseline,drop4_all,drop15_all,drop4_all.n9", "skip_impossible": True}
    admitted = held_against(CampaignSpec.model_validate(many), catalogue, NODES)
    assert set(admitted.left_out or {}) == {"drop15_all", "drop4_all.n9"}
    assert [one.id for one in configurations_of(admitted)] == ["baseline", "drop4_all"]
    again = CampaignSpec.model_validate_json(admitted.model_dump_json())
    assert configurations_of(again) == configurations_of(admitted)


def test_mixtral_is_told_what_it_cannot_do_before_work(catalogue: Catalogue) -> None:
    mixtral = catalogue.models[0].model_copy(
        update={"architecture": "MixtralForCausalLM", "n_experts": 8, "experts_per_token": 2, "layouts": ("uniform",)}
    )
    small = catalogue.model_copy(update={"models": (mixtral,)})
    paper = CampaignSpec.model_validate(SPEC | {"configurations": "all", "skip_impossible": True})
    admitted = held_against(paper, small, NODES)
    runs = {one.id for one in configurations_of(admitted)}
    assert runs == {"baseline", *(f"drop{depth}_all" for depth in range(1, 7))}
    assert len(admitted.left_out or {}) == 26 - 7
    with pytest.raises(ConfigurationError, match=r"19 configuration\(s\) can never run"):
        held_against(paper.model_copy(update={"skip_impossible": None}), small, NODES)


def test_variants_of_both_layouts_are_not_compared_where_these_are_two_surgeries(catalogue: Catalogue) -> None:
    both = CampaignSpec.model_validate(SPEC | {"configurations": "drop4_all,drop4_late"})
    held_against(both, catalogue, NODES)
    models = tuple(one.model_copy(update={"layouts_agree": False}) for one in catalogue.models)
    other = catalogue.model_copy(update={"models": models})
    with pytest.raises(ConfigurationError, match=r"drop4_all\) and forbidding them \(drop4_late\) are different"):
        held_against(both, other, NODES)
    for alike in ("baseline,drop2_all,drop4_all", "baseline_biased,drop2_early,drop4_late"):
        held_against(CampaignSpec.model_validate(SPEC | {"configurations": alike}), other, NODES)


def test_a_model_without_the_layout_says_why(catalogue: Catalogue) -> None:
    found = {"layouts": ("uniform",), "no_biased": "its gated shared experts exist in no such graph"}
    models = tuple(one.model_copy(update=found) for one in catalogue.models)
    with pytest.raises(ConfigurationError, match="no layout biased: its gated shared experts"):
        held_against(
            CampaignSpec.model_validate(SPEC | {"configurations": "drop4_late"}),
            catalogue.model_copy(update={"models": models}), NODES,
        )  # fmt: skip
