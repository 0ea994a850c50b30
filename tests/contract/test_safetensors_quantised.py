"""Checkpoints whose experts have scales and zero points, numbered, stacked and transposed: cut, verified, refused."""

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shared.checkpoints import safetensors, safetensors_surgery, surgery
from shared.checkpoints.safetensors import DTYPE_BYTES, TensorEntry
from shared.checkpoints.safetensors_experts import layer_of
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.records import SurgeryPlan
from surgeon.conversion.to_gguf import convert
from surgeon.verification.verify import verify
from tests.support.checkpoint_factory import make_checkpoint

E, D, FF = 4, 32, 16
KEPT = (0, 3)
PLAN = SurgeryPlan(n_experts=E, kept=(KEPT,) * 2, method="test")
Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""Name -> dtype and shape."""

NUMBERED: dict[str, Tensors] = {
    "FP8": {"weight": ("F8_E4M3", (FF, D)), "weight_scale_inv": ("F32", (1, 1))},
    "INT4 of GPTQ": {
        "qweight": ("I32", (D // 8, FF)), "qzeros": ("I32", (1, FF // 8)), "scales": ("F16", (1, FF)),
        "g_idx": ("I32", (D,)),
    },
    "INT4 of compressed-tensors": {
        "weight_packed": ("I32", (FF, D // 8)), "weight_scale": ("BF16", (FF, 1)), "weight_shape": ("I64", (2,)),
        "weight_zero_point": ("I32", (FF // 8, 1)),
    },
    "NVFP4": {
        "weight": ("U8", (FF, D // 2)), "weight_scale": ("F8_E4M3", (FF, D // 16)), "weight_scale_2": ("F32", ()),
        "input_scale": ("F32", ()),
    },
}  # fmt: skip
STACKED: dict[str, Tensors] = {
    "FP8": {
        "gate_up_proj": ("F8_E4M3", (E, 2 * FF, D)), "gate_up_proj_scale_inv": ("F32", (E, 1, 1)),
        "down_proj": ("F8_E4M3", (E, D, FF)), "down_proj_scale_inv": ("F32", (E, 1, 1)),
        "down_proj_input_scale": ("F32", ()),
    },
    "transposed": {"gate_up_proj": ("BF16", (E, D, 2 * FF)), "down_proj": ("BF16", (E, FF, D))},
    "with biases": {
        "gate_up_proj": ("F16", (E, 2 * FF, D)), "gate_up_proj.bias": ("F16", (E, 2 * FF)),
        "down_proj": ("F16", (E, D, FF)), "down_proj.bias": ("F16", (E, D)),
    },
}  # fmt: skip


def write(folder: Path, experts: Tensors, **config: Any) -> Path:
    """Write a checkpoint of two layers with these tensors of experts; random bytes, none of which is a NaN."""
    folder.mkdir()
    random = np.random.default_rng(0)
    tensors: Tensors = {"model.embed_tokens.weight": ("BF16", (8, D))}
    for layer in range(2):
        tensors[f"model.layers.{layer}.mlp.gate.weight"] = ("BF16", (E, D))
        tensors[f"model.layers.{layer}.mlp.shared_expert.up_proj.weight"] = ("BF16", (FF, D))
        tensors |= {f"model.layers.{layer}.mlp.{name}": what for name, what in experts.items()}
    header: dict[str, Any] = {}
    at = 0
    for name, (dtype, shape) in tensors.items():
        length = math.prod(shape) * DTYPE_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + length]}
        at += length
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(
        struct.pack("<Q", len(text)) + text + random.integers(0, 64, at, np.uint8).tobytes()
    )
    settings = {
        "architectures": ["Qwen3MoeForCausalLM"], "num_experts": E, "num_experts_per_tok": 2, "hidden_size": D,
        "moe_intermediate_size": FF, **config,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def numbered(parts: Tensors) -> Tensors:
    return {f"experts.{e}.up_proj.{name}": what for e in range(E) for name, what in parts.items()}


def stacked(parts: Tensors) -> Tensors:
    return {f"experts.{name}": what for name, what in parts.items()}


def bytes_of(tensor: TensorEntry) -> bytes:
    return np.fromfile(tensor.file, np.uint8, tensor.n_bytes, offset=tensor.offset).tobytes()


@pytest.mark.parametrize("kind", NUMBERED)
def test_scales_and_zero_points_go_with_their_numbered_expert(tmp_path: Path, kind: str) -> None:
    base = write(tmp_path / "base", numbered(NUMBERED[kind]))
    surgery.apply_plan(base, PLAN, tmp_path / "cut")
    verify(base, PLAN, tmp_path / "cut")
    old, new = safetensors.parse(base).tensors(), safetensors.parse(tmp_path / "cut").tensors()
    for name in NUMBERED[kind]:
        for place, expert in enumerate(KEPT):
            mine, source = (f"model.layers.1.mlp.experts.{e}.up_proj.{name}" for e in (place, expert))
            assert bytes_of(new[mine]) == bytes_of(old[source])
    assert not [name for name in new if ".experts.2." in name]


@pytest.mark.parametrize("kind", STACKED)
def test_scales_and_biases_are_cut_with_stacked_experts(tmp_path: Path, kind: str) -> None:
    base = write(tmp_path / "base", stacked(STACKED[kind]))
    surgery.apply_plan(base, PLAN, tmp_path / "cut")
    verify(base, PLAN, tmp_path / "cut")
    old, new = safetensors.parse(base).tensors(), safetensors.parse(tmp_path / "cut").tensors()
    for name, (_, shape) in STACKED[kind].items():
        full = f"model.layers.1.mlp.experts.{name}"
        each = len(bytes_of(old[full])) // E
        expected = [bytes_of(old[full])[expert * each : (expert + 1) * each] for expert in KEPT]
        assert bytes_of(new[full]) == (b"".join(expected) if shape else bytes_of(old[full]))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("experts.gate_up_proj_scale", (7,)), ("gate.e_score_correction_bias", (E,)), ("router.weight", (E, D)),
     ("experts.w13_weight", (E, FF, D)), ("gate.weight_scale", (E, 1))],
)  # fmt: skip
def test_a_tensor_that_no_rule_knows_is_refused(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    base = write(tmp_path / "base", {**stacked(STACKED["FP8"]), name: ("F32", shape)})
    with pytest.raises(ConfigurationError, match=re.escape(f"mlp.{name}' {list(shape)} sounds like experts'")):
        surgery.describe(base)


def test_verify_finds_scales_that_were_copied_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that forgets them: `verify` has no list of names in common with it."""
    base = write(tmp_path / "base", stacked(STACKED["FP8"]))

    def forgetful(tensor: TensorEntry, n_experts: int) -> int | None:
        return None if "scale_inv" in tensor.name else layer_of(tensor, n_experts)

    monkeypatch.setattr(safetensors_surgery, "layer_of", forgetful)
    surgery.apply_plan(base, PLAN, tmp_path / "cut")
    with pytest.raises(DataError, match=r"the shape of .*scale_inv"):
        verify(base, PLAN, tmp_path / "cut")


def test_settings_that_name_experts_by_number_are_refused(tmp_path: Path) -> None:
    ignored = {"ignore": ["lm_head", "model.layers.0.mlp.experts.3.up_proj"]}
    base = write(tmp_path / "base", numbered(NUMBERED["FP8"]), quantization_config=ignored)
    with pytest.raises(ConfigurationError, match=r"experts\.3\.up_proj"):
        surgery.apply_plan(base, PLAN, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()


@pytest.mark.parametrize(
    "experts",
    [
        stacked({"gate_up_proj": ("BF16", (E, FF, D)), "down_proj": ("BF16", (E, D, FF))}),
        stacked({"gate_up_proj": ("BF16", (E, 2 * FF, D)), "down_proj": ("BF16", (E, D, D))}),
        numbered({"weight": ("BF16", (D, FF))}),
    ],
)
def test_shapes_that_config_json_denies_are_refused(tmp_path: Path, experts: Tensors) -> None:
    with pytest.raises(DataError, match=r"config\.json says"):
        surgery.describe(write(tmp_path / "base", experts))


def test_stacked_experts_with_scales_are_not_merged(tmp_path: Path) -> None:
    rows = (((0.5, 0.5, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)),) * 2
    plan = SurgeryPlan.model_validate({**PLAN.model_dump(), "merge": {"experts": rows, "routers": rows}})
    base = write(tmp_path / "base", stacked({**STACKED["with biases"], "down_proj_scale_inv": ("F32", (E, 1))}))
    with pytest.raises(ConfigurationError, match="scales or zero points cannot be merged"):
        surgery.apply_plan(base, plan, tmp_path / "cut")


@pytest.mark.parametrize("inner", [24, 32])  # 32: gate and up are square, so that only down tells how they lie
def test_transposed_experts_are_converted_as_the_others(tmp_path: Path, inner: int) -> None:
    folder = make_checkpoint(
        tmp_path / "hf", n_layers=1, n_experts=4, experts_per_token=2, stacked=True, expert_hidden=inner
    )
    convert(folder, tmp_path / "usual.gguf", outtype="F32")
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if ".experts." in name]:
        weights[name] = np.ascontiguousarray(weights[name].swapaxes(1, 2))
    save_file(weights, folder / "model.safetensors")
    convert(folder, tmp_path / "transposed.gguf", outtype="F32")
    assert (tmp_path / "usual.gguf").read_bytes() == (tmp_path / "transposed.gguf").read_bytes()


@pytest.mark.parametrize(
    ("naming", "changes", "message"),
    [
        ("qwen2", {"norm_topk_prob": True}, "never renormalises"),
        ("qwen3", {"norm_topk_prob": None}, "always renormalises"),  # where it is silent, transformers does not
        ("qwen3", {"hidden_act": "gelu"}, "hidden_act is gelu"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 64}, "sliding_window is 64"),
        ("mixtral", {"sliding_window": 64}, "sliding_window is 64"),
        ("qwen3", {"quantization_config": {"quant_method": "fp8"}}, "quantised already"),
    ],
)
def test_settings_that_the_graph_ignores_are_refused(
    tmp_path: Path, naming: str, changes: dict[str, Any], message: str
) -> None:
    folder = make_checkpoint(tmp_path / "hf", n_layers=1, n_experts=4, experts_per_token=2, naming=naming)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigurationError, match=message):
        convert(folder, tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()
