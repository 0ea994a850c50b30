"""Variants as data: ids of any depth, percentages, methods, grids, named variants, and the hash of a spec."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.campaign.spec_file import load_spec
from orchestrator.domain.campaign.cells import ModelShape, share_of
from orchestrator.domain.campaign.matrix import full_matrix, parse_selection, reference_of
from orchestrator.domain.campaign.schedule import configurations_of
from orchestrator.domain.campaign.serving import MatrixOptions
from orchestrator.domain.campaign.spec import CampaignSpec
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import SurgeryPlan

QWEN3 = ModelShape(n_layers=48, n_experts=128, experts_per_token=8)
ACCURACY = {"tasks": [{"task": "arc_challenge", "shots": 25}]}


def spec(**more: Any) -> CampaignSpec:
    given_ = {"schema_version": 2, "id": "c", "model": "m", "corpus": "t", "accuracy": ACCURACY, "model_shape": QWEN3}
    return CampaignSpec.model_validate(given_ | more)


def ids(selection: str, **options: Any) -> list[str]:
    return [one.id for one in parse_selection(selection, MatrixOptions(model_shape=QWEN3, **options))]


def test_synonyms_are_one_configuration() -> None:
    assert ids("drop32_all,drop25pct_all,drop25pct_all.frequency") == ["baseline", "drop32_all"]
    assert ids("drop64_all.reap,drop50pct_all.reap,drop64_all") == ["baseline", "drop64_all", "drop64_all.reap"]


@given(st.integers(1, 99), st.integers(2, 4096))
def test_a_percentage_is_rounded_half_up(percent: int, n_experts: int) -> None:
    exact = percent * n_experts / 100
    assert abs(share_of(percent, n_experts) - exact) <= 0.5 or share_of(percent, n_experts) == 1
    assert share_of(25, 10) == 3 and share_of(50, 128) == 64 and share_of(1, 8) == 1


def test_a_method_has_its_own_id_but_the_same_reference() -> None:
    found = {one.id: one for one in parse_selection("drop4_late.reap.n2,drop4_all.reap", MatrixOptions())}
    assert set(found) == {
        "baseline", "baseline_biased", "baseline_biased.n2", "drop4_all.reap", "drop4_late.reap.n2",
    }  # fmt: skip
    late = found["drop4_late.reap.n2"]
    assert (late.method, late.serving, reference_of(late)) == ("reap", "n2", "baseline_biased.n2")
    assert not late.is_usual_cell and found["baseline"].is_usual_cell


def test_the_middle_is_a_group_of_its_own() -> None:
    (middle,) = (one for one in parse_selection("drop4_middle", MatrixOptions(model_shape=QWEN3)) if one.depth)
    assert (middle.group, middle.layout, reference_of(middle)) == ("middle", "biased", "baseline_biased")
    assert [one.group for one in full_matrix()].count("middle") == 0, "the paper's matrix has no middle"
    with pytest.raises(ConfigurationError, match="has no middle"):
        parse_selection("drop1_middle", MatrixOptions(model_shape=QWEN3.model_copy(update={"n_layers": 2})))


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        ("drop121_all", "at most 120"),
        ("drop95pct_all", "at most 120"),
        ("drop100pct_all", "1..99"),
        ("drop0_all", "unknown configuration"),
        ("drop4_center", "unknown configuration"),
        ("drop4_all.reap.ean", "said twice"),
        ("baseline.reap", "unknown serving"),
        ("drop4_all.k120.k2", "said twice"),
        ("drop121_all.k8", "at most 120"),
    ],
)
def test_what_the_model_cannot_do_is_refused(selection: str, names: str) -> None:
    with pytest.raises(ConfigurationError, match=names) as refused:
        parse_selection(selection, MatrixOptions(model_shape=QWEN3))
    assert refused.value.where


def test_fewer_active_experts_leave_room_for_a_deeper_cut() -> None:
    assert "drop124_all.k4" in ids("drop124_all.k4")


def test_a_percentage_needs_the_models_shape() -> None:
    with pytest.raises(ConfigurationError, match="shape is not known"):
        parse_selection("drop25pct_all", MatrixOptions())


def test_version_1_keeps_its_limits() -> None:
    tasks = {"mmlu_5shot": "mmlu", "arc_challenge_25shot": "arc_challenge", "hellaswag_10shot": "hellaswag"}
    old = {"id": "c", "model": "m", "corpus": "t", "configurations": "drop9_all", "tasks": tasks}
    with pytest.raises(ConfigurationError, match="schema_version = 2"):
        configurations_of(CampaignSpec.model_validate(old))
    with pytest.raises(ValidationError, match="grid needs schema_version = 2"):
        CampaignSpec.model_validate(old | {"grid": {"depths": [4]}})


def test_a_grid_is_written_out() -> None:
    made = spec(configurations="baseline", grid={
        "depths": ["25%", 4], "methods": ["frequency", "reap"], "layers": ["all", "middle"], "servings": ["", "n2"],
    })  # fmt: skip
    found = [one.id for one in configurations_of(made) if one.is_pruned]
    assert len(found) == 2 * 2 * 2 * 2
    assert {"drop32_all", "drop32_all.reap", "drop4_middle.n2", "drop32_middle.reap.n2"} <= set(found)


def test_named_variants_write_their_surgeries_out() -> None:
    made = spec(configurations="eep-half,layers.n2", variants={
        "eep-half": {"experts": {"search": "eep", "drop": "50%", "questions": ["arc"], "merge": {"iterations": 5}}},
        "layers": {"experts": {"method": "reap", "drop": 4, "layers": [10, 11, 12], "protect": {"all": [3]}}},
    })  # fmt: skip
    found = {one.id: one for one in configurations_of(made)}
    half, layers = found["eep-half"], found["layers.n2"]
    assert (half.depth, half.method, half.layout, half.variant) == (64, "eep", "uniform", "eep-half")
    assert (layers.depth, layers.method, layers.layout, reference_of(layers)) == (
        4, "reap", "biased", "baseline_biased.n2",
    )  # fmt: skip
    assert made.variants is not None
    assert [one.kind for one in made.variants["eep-half"].surgeries] == ["search_experts", "merge_experts"]
    assert made.variants["eep-half"].surgeries[1].questions == ("arc",)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ({}, "surgeries"),
        ({"experts": {"drop": 4}, "file": "x"}, "give one of"),
        ({"experts": {"method": "reap"}}, "either drop or keep"),
        ({"experts": {"drop": 4, "keep": [3, 3]}}, "either drop or keep"),
        ({"experts": {"keep": [3, 3], "layers": "late"}}, "leave layers out"),
        ({"experts": {"drop": "120%"}}, "drop"),
        ({"experts": {"drop": 4, "protect": {"first": [1]}}}, "protect"),
        ({"experts": {"search": "eep", "drop": 4, "Iterations": 3}}, "no name of a parameter"),
        ({"experts": {"search": "eep", "drop": 4, "iterations": [3]}}, "iterations"),
        ({"experts": {"drop": 4, "deep": True}}, "deep"),
        ({"file": "theirs"}, "reference"),
        ({"surgeries": [{"kind": "merge_experts", "questions": ["arc"]}]}, "cannot be the first"),
        ({"surgeries": [{"kind": "Lobotomy"}]}, "kind"),
        ({"surgeries": [{"count": 1}]}, "kind"),
        (
            {"surgeries": [{"kind": "drop_layers", "count": 1}, {"kind": "merge_experts", "questions": ["arc"]}]},
            "cannot follow",
        ),
        ({"surgeries": [{"kind": "file", "name": "x"}, {"kind": "drop_layers"}], "reference": "baseline"}, "as it is"),
        (
            {"surgeries": [{"kind": "search_experts", "search": "eep_merge", "questions": ["arc"]}]},
            "cannot be the first",
        ),
        ({"plan": {"n_experts": 4, "kept": [[0, 9]]}}, "kept|expert id"),
    ],
)
def test_a_variant_that_makes_no_sense_is_refused_with_its_field(table: dict[str, Any], names: str) -> None:
    with pytest.raises(ValidationError, match=names):
        spec(configurations="v", variants={"v": table})


def test_any_surgeries_in_order_are_a_variant() -> None:
    """Kinds that only the surgeon knows, and kinds that decide, in one list."""
    half = {"kind": "prune_experts", "drop": "50%", "method": "reap", "layers": "late"}
    made = spec(configurations="short,cut.k4,told", variants={
        "short": {"surgeries": [{"kind": "drop_layers", "count": 3}]},
        "cut": {"base": "f16", "surgeries": [{"kind": "drop_layers", "count": 3}, half, {"kind": "quantize"}]},
        "told": {"surgeries": [{"kind": "prune_experts", "n_experts": 4, "kept": [[0, 1]], "layout": "biased"}]},
    })  # fmt: skip
    found = {one.id: one for one in configurations_of(made)}
    assert (found["short"].depth, found["short"].method, found["short"].layout) == (0, "drop_layers", "uniform")
    cut = found["cut.k4"]
    assert (cut.depth, cut.group, cut.method, cut.layout) == (64, "late", "reap", "biased")
    assert (found["told"].method, found["told"].layout) == ("prune_experts", "biased")
    variants = made.variants or {}
    assert [variants[name].is_one_plan for name in variants] == [False, False, False]
    assert [type(one).__name__ for one in variants["cut"].surgeries] == [
        "AppliedSurgery", "PruneExperts", "AppliedSurgery",
    ]  # fmt: skip
    again = CampaignSpec.model_validate_json(made.model_dump_json())
    assert again == made and again.spec_hash() == made.spec_hash()
    assert made.model_dump(mode="json")["variants"]["short"]["surgeries"] == [{"kind": "drop_layers", "count": 3}]


def test_the_hash_of_a_variant_that_searches_is_that_of_before() -> None:
    """Parameters of a search stood as fields of their own in the spec: they stand where they stood."""
    experts = {"search": "eep", "drop": 4, "questions": ["arc"], "iterations": 3, "merge": {"iterations": 2}}
    made = spec(configurations="v", variants={"v": {"experts": experts}})
    dumped = made.model_dump(mode="json", exclude_defaults=True)["variants"]["v"]["surgeries"]
    searched = {"search": "eep", "drop": 4, "questions": ["arc"], "iterations": 3}
    assert dumped == [searched, {"questions": ["arc"], "iterations": 2}]


@pytest.mark.parametrize("name", ["all", "baseline", "baseline_biased", "drop4_all", "drop25pct_late"])
def test_a_variant_needs_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ValidationError, match="choose another name"):
        spec(variants={name: {"experts": {"drop": 4}}})


def test_a_plan_file_becomes_part_of_the_spec(tmp_path: Path) -> None:
    plan = SurgeryPlan(n_experts=4, kept=((0, 1, 2), (1, 2, 3)))
    (tmp_path / "mine.json").write_text(plan.model_dump_json())
    text = 'schema_version = 2\nid = "c"\nmodel = "m"\ncorpus = "t"\nconfigurations = "mine"\n'
    text += '[accuracy]\ntasks = [{ task = "arc_challenge" }]\n[variants.mine]\nplan = "mine.json"\n'
    (tmp_path / "spec.toml").write_text(text)
    made = load_spec(tmp_path / "spec.toml")
    assert made.variants is not None and made.variants["mine"].surgeries[0].plan == plan  # type: ignore[union-attr]
    (tmp_path / "mine.json").unlink()
    with pytest.raises(ConfigurationError, match="cannot read the plan") as refused:
        load_spec(tmp_path / "spec.toml")
    assert refused.value.where == "variants.mine.plan"


def test_the_hash_is_of_what_is_said_not_of_what_is_filled_in() -> None:
    one = spec(configurations="drop4_all")
    again = CampaignSpec.model_validate_json(one.model_dump_json())
    assert again.spec_hash() == one.spec_hash() == spec(configurations="drop4_all", model_shape=None).spec_hash()
    assert spec(configurations="drop4_all", repetitions=3).spec_hash() == one.spec_hash(), "a default said aloud"
    assert spec(configurations="drop5_all").spec_hash() != one.spec_hash()
    assert json.loads(one.model_dump_json())["repetitions"] == 3, "the frozen spec says everything"


def test_published_fields_are_filled_by_their_own_benchmarks() -> None:
    own = [{"task": "mmlu", "shots": 5, "weight": 2}, {"task": "arc_challenge", "shots": 25}, {"task": "ee"}]
    made = spec(accuracy={"tasks": own})
    assert list(made.intelligence.fields) == ["mmlu_5shot", "arc_challenge_25shot", "ee"]
    assert made.intelligence.weights == pytest.approx({"mmlu_5shot": 0.5, "arc_challenge_25shot": 0.25, "ee": 0.25})
    with pytest.raises(ValidationError, match="published for mmlu with 5 shots"):
        spec(accuracy={"tasks": [{"task": "my_mmlu", "accuracy_field": "mmlu_5shot"}]})
    spec(accuracy={"tasks": [{"task": "my_mmlu", "accuracy_field": "mmlu_5shot", "stands_in": True}]})
    with pytest.raises(ValidationError, match="given twice"):
        spec(accuracy={"tasks": [{"task": "ee"}, {"task": "ee"}]})
    with pytest.raises(ValidationError, match="either"):
        spec(accuracy=None)
