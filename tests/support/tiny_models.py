"""Tiny random models of every architecture with experts, made with llama.cpp's own list of tensors.

A recipe is metadata only. llama.cpp is asked which tensors, of which shapes, it would load for that metadata
(`llama_model_init_from_user`); those are drawn at random and written as a GGUF, so that no list of tensors is kept
here, and an architecture that changes is followed.
"""

import ctypes
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np

from shared.llama.library import api, ggml, log_tail
from shared.llama.tensor import Tensor

Value = bool | int | float | str | Sequence[int] | Sequence[float] | Sequence[bool]
N_EXPERTS: Final = 8
ACTIVE: Final = 2
VOCABULARY: Final = 96

_COMMON: Final[Mapping[str, Value]] = {
    "vocab_size": VOCABULARY, "context_length": 128, "embedding_length": 32, "block_count": 2,
    "feed_forward_length": 24, "leading_dense_block_count": 0, "full_attention_interval": 2, "logit_scale": 1.0,
    "attention.head_count": 2, "attention.head_count_kv": 2, "attention.layer_norm_epsilon": 1e-5,
    "attention.layer_norm_rms_epsilon": 1e-5, "attention.q_lora_rank": 32, "attention.kv_lora_rank": 32,
    "attention.sliding_window": 32, "attention.sliding_window_pattern": 2,
    "attention.indexer.head_count": 64, "attention.indexer.key_length": 128, "attention.indexer.top_k": 131072,
    "attention.indexer.block_size": 4, "attention.indexer.local_blocks": 1, "attention.indexer.kpool": 4,
    "rope.dimension_sections": [2, 2, 2, 2],
    "expert_count": N_EXPERTS, "expert_used_count": ACTIVE, "expert_feed_forward_length": 16,
    "expert_shared_feed_forward_length": 16, "expert_shared_count": 1, "interleave_moe_layer_step": 1,
    "ssm.inner_size": 64, "ssm.conv_kernel": 4, "ssm.state_size": 32, "ssm.time_step_rank": 2, "ssm.group_count": 2,
    "kda.head_dim": 32, "kda.gate_lower_bound": -5.0, "shortconv.l_cache": 3, "residual_scale": 1.5,
    "attn_res.block_size": 12, "activation.situ_beta": 4.0, "activation.situ_linear_beta": 25.0,
    "expert_latent_length": 32, "router_logit_softcapping": 30.0, "attn_logit_softcapping": 30.0,
}  # fmt: skip
"""What most of them take; llama.cpp passes over keys that an architecture does not have."""

_HYBRID: Final[Mapping[str, Value]] = {"attention.head_count": [2, 0], "attention.head_count_kv": [2, 0]}
_LATENT: Final[Mapping[str, Value]] = {
    "attention.head_count": 1, "attention.head_count_kv": 1, "attention.key_length": 48, "attention.value_length": 32,
    "rope.dimension_count": 16, "attention.key_length_mla": 32, "attention.value_length_mla": 16,
}  # fmt: skip
_LATENT_HYBRID: Final[Mapping[str, Value]] = {
    **_LATENT, "attention.head_count": [1, 0], "attention.head_count_kv": [1, 0]
}  # fmt: skip
_INDEXED: Final[Mapping[str, Value]] = {
    **_LATENT, "attention.key_length": 96, "rope.dimension_count": 64, "attention.key_length_mla": 80
}  # fmt: skip
_HYPER: Final[Mapping[str, Value]] = {
    "hyper_connection.count": 4, "hyper_connection.sinkhorn_iterations": 2, "hyper_connection.epsilon": 1e-6
}  # fmt: skip
_SOFTMAX: Final[Mapping[str, Value]] = {"expert_gating_func": 1}
_SIGMOID: Final[Mapping[str, Value]] = {"expert_gating_func": 2, "expert_weights_norm": True}
_WINDOWS: Final[Mapping[str, Value]] = {"attention.sliding_window_pattern": [0, 1]}
_PLAIN: Final = ("*.scale", "*.input_scale", "rope_f*", "*.attn_*.bias")
"""Without what Qwen3-MoE and Mixtral do not have, and the graphs of their substitutes lack."""


@dataclass(frozen=True)
class Recipe:
    """How a tiny model is made."""

    architecture: str
    settings: Mapping[str, Value] = field(default_factory=dict)
    without: tuple[str, ...] = ("*.scale", "*.input_scale", "rope_f*")
    """Optional tensors that are left out, as patterns."""
    experts_as: str = "F32"
    """Type of the experts' matrices."""
    split_gate_up: bool = False
    """Write the fused gate and up matrices as two."""


RECIPES: Final[Mapping[str, Recipe]] = {
    recipe.architecture: recipe
    for recipe in (
        Recipe("qwen3moe", without=_PLAIN), Recipe("qwen2moe"), Recipe("olmoe"), Recipe("llama", without=_PLAIN),
        Recipe("mistral3"),
        Recipe("qwen3vlmoe"), Recipe("qwen3next"), Recipe("qwen35moe"), Recipe("deepseek"), Recipe("gpt-oss"),
        Recipe("granite"), Recipe("granitemoe"), Recipe("granitehybrid", _HYBRID), Recipe("granite_swa", _WINDOWS),
        Recipe("dbrx", {"attention.clamp_kqv": 8.0}), Recipe("arctic"), Recipe("grok"), Recipe("hunyuan-moe"),
        Recipe("jamba", _HYBRID), Recipe("llada-moe"), Recipe("maple", {**_WINDOWS, "swiglu_clamp_exp": 7.0}),
        Recipe("mellum"), Recipe("minicpm"), Recipe("minimax-01"), Recipe("phimoe"), Recipe("rnd1"),
        Recipe("llama4", {"block_count": 4, "interleave_moe_layer_step": 2}),
        Recipe("deepseek2", {**_LATENT, **_SIGMOID}), Recipe("deepseek2-ocr", _SOFTMAX),
        Recipe("deepseek32", {**_INDEXED, **_SIGMOID}), Recipe("mistral4", _LATENT), Recipe("glm4moe", _SIGMOID),
        Recipe("glm-dsa", {**_INDEXED, **_SIGMOID}), Recipe("dots1", _SIGMOID), Recipe("afmoe", _SIGMOID),
        Recipe("bailingmoe", {"expert_weights_norm": True}), Recipe("bailingmoe2", _SIGMOID),
        Recipe("bailingmoe3", {
            **_LATENT_HYBRID, **_SIGMOID, "rope.dimension_sections": [2, 3, 3, 0], "swiglu_clamp_exp": [0.0, 4.0],
            "swiglu_clamp_shexp": [0.0, 5.0],
        }),
        Recipe("cohere2moe", _SIGMOID), Recipe("ernie4_5-moe"), Recipe("exaone-moe", _SIGMOID),
        Recipe("hy_v3", _SIGMOID),
        Recipe("kimi-linear", {**_LATENT_HYBRID, **_SIGMOID}), Recipe("kimi-k3", {**_LATENT_HYBRID, **_SIGMOID}),
        Recipe("laguna", _SIGMOID), Recipe("lfm2moe", {**_HYBRID, **_SIGMOID}), Recipe("mimo2", _WINDOWS),
        Recipe("minimax-m2", _SIGMOID), Recipe("minimax-m3", {**_SIGMOID, "attention.indexer.head_count": 2}),
        Recipe("smallthinker", _SOFTMAX), Recipe("step35", {**_WINDOWS, **_SIGMOID}),
        Recipe("dots3note", {
            **_INDEXED, **_SIGMOID, **_WINDOWS, "attention.kv_lora_rank_swa": 32, "attention.key_length_swa": 96,
            "attention.value_length_swa": 32, "attention.key_length_mla_swa": 80, "attention.value_length_mla_swa": 16,
            "rope.freq_base_swa": 10000.0, "attention.indexer.types": [1, 0],
        }),
        Recipe("nemotron_h_moe", {
            "block_count": 3, "feed_forward_length": [0, 0, 24], "attention.head_count": [2, 0, 2],
            "attention.head_count_kv": [2, 0, 2], "expert_weights_norm": True,
        }, ("*.scale", "*.input_scale", "*latent*")),
        Recipe("deepseek4", {
            **_HYPER, "block_count": 4, "attention.head_count_kv": 1, "attention.key_length": 64,
            "attention.value_length": 64, "rope.dimension_count": 32, "attention.output_group_count": 2,
            "attention.output_lora_rank": 32, "attention.compress_ratios": [0, 0, 4, 128],
            "attention.compress_rope_freq_base": 160000.0, "hash_layer_count": 0, "swiglu_clamp_exp": 10.0,
            "expert_weights_scale": 1.0, "expert_weights_norm": True, "expert_gating_func": 4,
        }),
        Recipe("hy_v4", {
            **_INDEXED, **_SIGMOID, **_HYPER, "hyper_connection.magnitude": 2.0, "swiglu_clamp_exp": 10.0,
            "expert_weights_scale": 1.0, "attention.indexer.types": [1, 0],
        }),
        Recipe("glm5-next", {
            **_LATENT, **_SIGMOID, **_HYPER, "attention.head_count_kv": [1, 0], "attention.key_length": 32,
            "rope.dimension_count": 0,
        }),
        Recipe("qwen4exp", {**_HYPER, "hyper_connection.low_rank": 8}),
        Recipe("gemma4", {
            "block_count": 3, "attention.sliding_window_pattern": [True, True, False], "attention.shared_kv_layers": 0,
            "embedding_length_per_layer_input": 8, "attention.key_length_swa": 16, "attention.value_length_swa": 16,
            "rope.freq_base_swa": 10000.0,
        }, ()),
        Recipe("grovemoe"), Recipe("refact"), Recipe("llama-embed"),
    )
}  # fmt: skip
"""By llama.cpp's name of the architecture."""

_NO_BIAS: Final = ("*.scale", "*.input_scale", "rope_f*", "*.exp_probs_b*")
_UNNORMALISED: Final[Mapping[str, Value]] = {**_SOFTMAX, "expert_weights_norm": False}
_GROUPS: Final[Mapping[str, Value]] = {"expert_group_count": 2, "expert_group_used_count": 1}
VARIANTS: Final[Mapping[str, Recipe]] = {
    "scales": Recipe("qwen3moe", without=("rope_f*", "*.attn_*.bias")),
    "scales of Mixtral": Recipe("llama", without=("rope_f*", "*.attn_*.bias")),
    "Q8_0": Recipe("qwen3moe", {"expert_feed_forward_length": 32}, _PLAIN, experts_as="Q8_0"),
    "MXFP4": Recipe("gpt-oss", {"expert_feed_forward_length": 32}, experts_as="MXFP4"),
    "gate and up apart, V3": Recipe("deepseek2", {**_LATENT, **_SIGMOID}, split_gate_up=True),
    "gate and up apart, Qwen3.5": Recipe("qwen35moe", split_gate_up=True),
    "DeepSeek-V2": Recipe("deepseek2", {**_LATENT, **_UNNORMALISED}, _NO_BIAS),
    "DeepSeek-V2 in groups": Recipe("deepseek2", {**_LATENT, **_UNNORMALISED, **_GROUPS}, _NO_BIAS),
    "DeepSeek-V3 in groups": Recipe("deepseek2", {**_LATENT, **_SIGMOID, **_GROUPS}),
    "softmax and bias, gates as they are": Recipe("dots1", _UNNORMALISED),
    "softmax without bias, gates normalised": Recipe("ernie4_5-moe", without=_NO_BIAS),
    "dense layer first, further tokens": Recipe(
        "glm4moe", {**_SIGMOID, "block_count": 4, "leading_dense_block_count": 1, "nextn_predict_layers": 1}
    ),
}  # fmt: skip
"""Features that files have or lack."""


class _Parameters(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def make_model(path: Path, recipe: Recipe, *, seed: int = 0) -> Path:
    """Write the model of a recipe to `path` and return it; the same recipe and seed give the same bytes."""
    header = path.with_suffix(".header")
    writer = _writer(header, recipe)
    _close(writer)
    shapes = _tensors(header)
    header.unlink()
    random = np.random.default_rng(seed)
    writer = _writer(path, recipe)
    for name, shape in shapes.items():
        if any(fnmatch.fnmatch(name, pattern) for pattern in recipe.without):
            continue
        values = _draw(random, name, shape)
        halves = {name: values}
        if recipe.split_gate_up and ".ffn_gate_up_exps." in name:
            gate, up = np.split(values, 2, axis=1)
            halves = {name.replace("gate_up", "gate"): gate, name.replace("gate_up", "up"): up}
        for part, half in halves.items():
            if recipe.experts_as != "F32" and "_exps.weight" in part:
                kind = gguf.GGMLQuantizationType[recipe.experts_as]
                writer.add_tensor(part, _quantised(random, half, kind), raw_dtype=kind)
            else:
                writer.add_tensor(part, half)
    _close(writer)
    return path


def _writer(path: Path, recipe: Recipe) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, recipe.architecture)
    for key, value in {**_COMMON, **recipe.settings}.items():
        full = f"{recipe.architecture}.{key}"
        if isinstance(value, bool):
            writer.add_bool(full, value)
        elif isinstance(value, int):
            writer.add_uint32(full, value)
        elif isinstance(value, float):
            writer.add_float32(full, value)
        elif isinstance(value, str):
            writer.add_string(full, value)
        else:
            writer.add_array(full, list(value))
    writer.add_tokenizer_model("test")
    writer.add_token_list([f"tok_{token}" for token in range(VOCABULARY)])
    writer.add_token_scores([0.0] * VOCABULARY)
    return writer


def _close(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(header: Path) -> dict[str, tuple[int, ...]]:
    """Return the tensors that llama.cpp would load for a header: name -> shape, outermost first."""
    library, llama = ggml(), api()
    library.gguf_init_from_file.restype = ctypes.c_void_p
    library.gguf_init_from_file.argtypes = [ctypes.c_char_p, _Parameters]
    library.gguf_free.argtypes = [ctypes.c_void_p]
    metadata = library.gguf_init_from_file(str(header).encode(), _Parameters(True, None))
    found: dict[str, tuple[int, ...]] = {}

    @llama.llama_model_set_tensor_data_t  # type: ignore[untyped-decorator,unused-ignore]
    def note(address: int, _data: object) -> None:
        tensor = Tensor(address)
        ne = list(tensor.ne)
        while len(ne) > 1 and ne[-1] == 1:
            ne.pop()
        found.setdefault(tensor.name, tuple(reversed(ne)))

    parameters = llama.llama_model_default_params()
    devices = (ctypes.c_void_p * 1)(None)
    parameters.devices = ctypes.addressof(devices)
    parameters.load_mtp = True
    model = llama.llama_model_init_from_user(metadata, note, None, parameters)
    assert model, log_tail()
    llama.llama_model_free(model)
    library.gguf_free(metadata)
    return found


def _draw(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> Any:
    values = random.normal(0, 1, shape).astype(np.float32)
    if name.endswith("norm.weight"):
        return 1 + 0.1 * values
    if "ssm_a" in name:
        return -np.abs(values)
    if name.endswith("scale"):
        return 1 + 0.3 * np.abs(values)
    factor = shape[-1] ** -0.5
    if "exp_probs_b" in name:
        factor = 0.2
    elif len(shape) == 1:
        factor = 0.1
    elif "ffn_gate_inp" in name:
        factor *= 2
    elif "token_embd" in name:
        factor = 0.5
    return values * np.float32(factor)


def _quantised(random: np.random.Generator, values: Any, kind: gguf.GGMLQuantizationType) -> Any:
    if kind != gguf.GGMLQuantizationType.MXFP4:
        return np.asarray(gguf.quantize(values, kind))
    blocks = random.integers(0, 256, (*values.shape[:-1], values.shape[-1] // 32, 17), dtype=np.uint8)
    blocks[..., 0] = 125  # the block's scale: 2^-3 times values up to 12
    return blocks.reshape(*values.shape[:-1], -1)
