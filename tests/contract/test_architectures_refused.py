"""What cannot be cut says so in one sentence, before anything is written; and `verify` judges for itself."""

import re
from dataclasses import replace
from pathlib import Path

import gguf as gguf_library
import numpy as np
import pytest

from shared.checkpoints import gguf, surgery
from shared.checkpoints.architectures import ARCHITECTURES
from shared.checkpoints.gguf_experts import describe, routing_of
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.records import SurgeryPlan
from shared.llama import model as llama
from surgeon.verification.verify import verify
from tests.support.tiny_models import N_EXPERTS, RECIPES, VARIANTS, Recipe, make_model

KEPT = (0, 1, 2, 4, 5, 6)


def plan(kept: tuple[int, ...] = KEPT, layout: str = "uniform", n_layers: int = 2, n_experts: int = 8) -> SurgeryPlan:
    return SurgeryPlan(n_experts=n_experts, kept=(kept,) * n_layers, layout=layout, method="test")


def bare(path: Path, architecture: str, n_experts: int = 8, also: str = "") -> Path:
    """Write a file that has experts and nothing else but the tensor `also` of layer 0, a vector."""
    writer = gguf_library.GGUFWriter(path, architecture)
    writer.add_expert_count(n_experts)
    writer.add_expert_used_count(2)
    shapes: dict[str, tuple[int, ...]] = {"ffn_gate_inp.weight": (n_experts, 32)}
    shapes |= {f"ffn_{part}_exps.weight": (n_experts, 32, 32) for part in ("gate", "up", "down")}
    if also:
        shapes[also] = (8,)
    for name, shape in shapes.items():
        writer.add_tensor(f"blk.0.{name}", np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_every_architecture_of_the_gguf_library_with_experts_has_a_row() -> None:
    experts = {gguf_library.MODEL_TENSOR.FFN_DOWN_EXP, gguf_library.MODEL_TENSOR.FFN_UP_EXP}
    names, tensors = gguf_library.MODEL_ARCH_NAMES, gguf_library.MODEL_TENSORS
    known = {names[one] for one, found in tensors.items() if experts & {*found}}
    assert known - {"deci"} <= set(ARCHITECTURES)  # deci: listed there, but llama.cpp's loader of it has no experts


def test_every_row_has_a_recipe_or_says_why_not() -> None:
    without = {name for name, row in ARCHITECTURES.items() if row.no_surgery}
    assert set(ARCHITECTURES) - without == set(RECIPES) - without


@pytest.mark.parametrize("name", [name for name, row in ARCHITECTURES.items() if row.no_surgery])
def test_an_architecture_without_surgery_says_why(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(ARCHITECTURES[name].no_surgery)):
        surgery.describe(bare(tmp_path / "m.gguf", name))


def test_refacts_graph_leaves_the_experts_out(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.gguf", RECIPES["refact"])
    names: list[str] = []

    def note(tensor: llama.Tensor, ask: bool) -> bool:
        names.append(tensor.name)
        return not ask

    with (
        llama.Model(path) as model,
        llama.Context(model, context_tokens=16, batch_tokens=16, on_tensor=note) as context,
    ):
        context.decode([1, 2, 3], range(3))
    assert names and not [name for name in names if "moe" in name]


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'unheard-of' is not supported"):
        surgery.describe(bare(tmp_path / "m.gguf", "unheard-of"))


@pytest.mark.parametrize(
    "name", ["ffn_gate_tid2eid.weight", "ffn_up_chexps.weight", "ffn_norm_exps.weight", "ffn_gate_inp.scale",
             "ffn_up_exps.zero_point", "moe_router.weight", "exp_probs_c.bias"],
)  # fmt: skip
def test_a_tensor_that_no_rule_knows_is_refused(tmp_path: Path, name: str) -> None:
    """Copied whole, it would belong to other experts after the cut."""
    with pytest.raises(ConfigurationError, match=re.escape(f"'blk.0.{name}' sounds like experts' or routers'")):
        surgery.describe(bare(tmp_path / "m.gguf", "qwen3moe", also=name))


def test_scales_and_input_scales_are_cut_with_their_experts(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base.gguf", VARIANTS["scales"])
    surgery.apply_plan(base, plan(), tmp_path / "cut.gguf")
    for name in ("ffn_up_exps.scale", "ffn_down_exps.input_scale"):
        old, new = (gguf.parse(path).tensor(f"blk.1.{name}") for path in (base, tmp_path / "cut.gguf"))
        assert old is not None and new is not None
        whole, left = (np.fromfile(one.file, np.float32, one.ne[0], offset=one.offset) for one in (old, new))
        assert left.tolist() == whole[list(KEPT)].tolist()


def test_verify_finds_a_tensor_that_was_copied_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that forgets the input scales: `verify` has no list of names in common with it."""
    from shared.checkpoints import gguf_experts, gguf_surgery

    base = make_model(tmp_path / "base.gguf", VARIANTS["scales"])
    forgetful = lambda name: None if name.endswith("input_scale") else gguf_experts.part_of(name)  # noqa: E731
    monkeypatch.setattr(gguf_surgery, "part_of", forgetful)
    surgery.apply_plan(base, plan(), tmp_path / "cut.gguf")
    with pytest.raises(DataError, match=r"the shape of .*input_scale"):
        verify(base, plan(), tmp_path / "cut.gguf")


@pytest.mark.parametrize(
    ("kept", "layout", "problem"),
    [
        ((0, 1, 2, 3, 4, 5), "uniform", "equally from each group"),
        ((0, 4), "uniform", "at least 2"),
        ((0, 1, 2, 3, 4), "biased", "at least 2"),
    ],
)
def test_groups_of_experts_are_cut_so_that_the_engine_can_choose(
    tmp_path: Path, kept: tuple[int, ...], layout: str, problem: str
) -> None:
    base = make_model(tmp_path / "base.gguf", VARIANTS["DeepSeek-V3 in groups"])
    with pytest.raises(ConfigurationError, match=f"2 groups of 4: .*{problem}"):
        surgery.apply_plan(base, plan(kept, layout), tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


def test_a_group_must_hold_what_is_active(tmp_path: Path) -> None:
    settings = {**VARIANTS["DeepSeek-V3 in groups"].settings, "expert_used_count": 3}
    base = make_model(tmp_path / "base.gguf", replace(VARIANTS["DeepSeek-V3 in groups"], settings=settings))
    with pytest.raises(ConfigurationError, match="any 1 groups must hold the 3 experts"):
        surgery.apply_plan(base, plan((0, 1, 4, 5)), tmp_path / "x.gguf")


@pytest.mark.parametrize(("before", "after"), [(128, 126), (130, 128)])
def test_llama_4_of_128_experts_is_another_graph(tmp_path: Path, before: int, after: int) -> None:
    """llama.cpp normalises queries and keys of every Llama-4 but that of 128 experts."""
    base = bare(tmp_path / "m.gguf", "llama4", before)
    with pytest.raises(ConfigurationError, match="otherwise when it has 128 experts"):
        surgery.apply_plan(base, plan(tuple(range(after)), n_layers=1, n_experts=before), tmp_path / "x.gguf")


def test_a_model_whose_layers_have_other_numbers_of_active_experts_is_refused(tmp_path: Path) -> None:
    settings = {**RECIPES["nemotron_h_moe"].settings, "expert_used_count": [1, 1, 2]}
    base = make_model(tmp_path / "m.gguf", replace(RECIPES["nemotron_h_moe"], settings=settings))
    with pytest.raises(DataError, match="expert_used_count' is not one integer"):
        surgery.describe(base)


def test_a_missing_gating_function_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dots1\.expert_gating_func' is missing"):
        surgery.describe(bare(tmp_path / "m.gguf", "dots1"))


def test_a_substitute_that_would_not_load_the_file_is_refused_with_the_tensor(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base.gguf", VARIANTS["scales of Mixtral"])
    with pytest.raises(ConfigurationError, match=r"ernie4_5-moe, which knows no tensor blk\.0\.\w+\.\w*scale"):
        surgery.apply_plan(base, plan(layout="biased"), tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("recipe", "agree"),
    [
        (RECIPES["qwen3moe"], True), (RECIPES["olmoe"], False), (RECIPES["gpt-oss"], True),
        (VARIANTS["DeepSeek-V2"], False), (VARIANTS["DeepSeek-V3 in groups"], True), (RECIPES["ernie4_5-moe"], False),
        (VARIANTS["softmax without bias, gates normalised"], True),
    ],
)  # fmt: skip
def test_where_the_layouts_are_two_surgeries(tmp_path: Path, recipe: Recipe, agree: bool) -> None:
    file = gguf.parse(make_model(tmp_path / "m.gguf", recipe))
    assert routing_of(file).layouts_agree == describe(file).layouts_agree == agree
    assert describe(file).n_experts == N_EXPERTS
