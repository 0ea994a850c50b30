"""What llama.cpp's graphs do with experts: the one table that surgery, conversion, statistics and admission go by.

One row an architecture of the pinned llama.cpp that has `ffn_*_exps` tensors. `make test` proves every row on a tiny
model: made, cut in each layout the row has, loaded by llama.cpp and compared with a mask over the graph of the whole
model (tests/contract/test_architectures*.py); docs/formats.md shows the same table. Adding an architecture is a row
here and a recipe of its tiny model in tests/support/tiny_models.py.

Not here: where the experts of a file lie (`gguf`), how files are cut (`gguf_surgery`).
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from types import MappingProxyType
from typing import Final, Literal

Gating = Literal["softmax", "sigmoid", "softmax_of_selected", "sqrt_softplus"]
"""What makes gates of the router's logits; `softmax_of_selected` is taken over the chosen experts only."""

GATINGS: Final[Mapping[int, Gating]] = MappingProxyType(
    {1: "softmax", 2: "sigmoid", 3: "softmax_of_selected", 4: "sqrt_softplus"}
)
"""The metadata key `expert_gating_func`."""

BIAS: Final = "exp_probs_b.bias"
"""Tensor of a layer's selection bias: added to what the top K is taken of, and to nothing else."""


@dataclass(frozen=True, slots=True)
class Substitute:
    """An architecture whose graph is that of another plus a selection bias: the biased layout is written as it."""

    name: str
    bias: str
    settings: Mapping[str, int | bool]
    """Metadata that makes the graphs equal, without the architecture's prefix."""
    tensors: str
    """Regular expression of the tensors that its loader knows, without `blk.N.`; other files have no substitute."""
    shared_width: int = 0
    """Width of the shared expert that its graph always adds: written as zeros."""
    copied: Mapping[str, str] = field(default_factory=dict)
    """Metadata that the substitute's graph goes by, and what the other graph goes by instead."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One row."""

    name: str
    """llama.cpp's."""
    models: str
    """Known models of it."""
    gating: Gating | None = "softmax"
    """Where the file does not say it; None: it must."""
    _: KW_ONLY
    gating_in_file: bool = False
    """The graph goes by `expert_gating_func` where the file has it."""
    normalises: bool | None = True
    """Whether gates are divided by their sum over the chosen experts; None: `expert_weights_norm` says so."""
    bias: str | Substitute | None = None
    """The graph's selection bias, or the substitute that has one; None: no biased layout."""
    no_bias: str = "its graph in llama.cpp reads no selection bias, and none that does is known to compute the same"
    whole: str = ""
    """Regular expression of tensors that sound like experts' or routers' and are not per expert, without `blk.N.`."""
    activation: str = "silu"
    """Between an expert's matrices: silu and gelu of gate times up, and what the graph calls otherwise."""
    residual: str = "ffn_inp"
    """What the graph calls the hidden state before the experts."""
    no_surgery: str = ""
    """Why no layout exists."""
    no_statistics: str = ""
    """Why experts cannot be observed."""
    fixed_counts: tuple[int, ...] = ()
    """Expert counts by which llama.cpp recognises one model and computes otherwise: not to be left or reached."""
    classes: tuple[str, ...] = ()
    """Hugging Face classes that are converted to it."""

    @property
    def substitute(self) -> Substitute | None:
        """The architecture that a biased file is written as, None where it stays this one."""
        return self.bias if isinstance(self.bias, Substitute) else None

    @property
    def bias_tensor(self) -> str:
        """Name of the selection bias in a biased file, without `blk.N.`; "" where there is none."""
        return self.bias.bias if isinstance(self.bias, Substitute) else self.bias or ""


_HY_V3 = Substitute(
    "hy_v3", "exp_probs_b", {"expert_gating_func": 1, "expert_weights_norm": True},
    r"(?:attn_(?:norm|q|k|v|qkv|output|q_norm|k_norm)|ffn_(?:norm|gate_inp|gate|up|down)|ffn_(?:gate|up|down)_exps)"
    r"\.weight|.+\.(?:scale|input_scale)", shared_width=32,
)  # fmt: skip
_ERNIE = Substitute(
    "ernie4_5-moe", BIAS,
    {"interleave_moe_layer_step": 1, "leading_dense_block_count": 0, "expert_shared_feed_forward_length": 0},
    r"(?:attn_(?:norm|q|k|v|output)|ffn_(?:norm|gate_inp)|ffn_(?:gate|up|down)_exps)\.weight",
    copied={"expert_feed_forward_length": "feed_forward_length"},
)  # fmt: skip
_GATED_SHARED = "its gated shared experts exist in no graph of llama.cpp that reads a selection bias"
_DRAFT = "a draft model: it has no log-probabilities of its own to compare"
_EMBEDDING = "an embedding model: it gives no log-probabilities to compare"
_LATENT = "its routers and its experts see different inputs"
_BESIDE = "its experts work beside the attention, on the hidden state before both"
_UNNAMED = "its graph does not name the hidden state before the experts"
_STREAMS = "its hyper-connections have no single hidden state before the experts"


def _by_file(
    name: str, models: str, gating: Gating | None = None, *, normalises: bool | None = None,
    bias: str | Substitute | None = BIAS, activation: str = "silu", residual: str = "ffn_inp", no_statistics: str = "",
) -> Architecture:  # fmt: skip
    """Return the row of a graph that goes by the file's gating function, and by what it says of normalising."""
    return Architecture(
        name, models, gating, gating_in_file=True, normalises=normalises, bias=bias, activation=activation,
        residual=residual, no_statistics=no_statistics,
    )  # fmt: skip


_ROWS: Final = (
    Architecture("qwen3moe", "Qwen3-MoE", bias=_HY_V3, classes=("Qwen3MoeForCausalLM",)),
    Architecture("llama", "Mixtral", bias=_ERNIE, classes=("MixtralForCausalLM",)),
    Architecture(
        "qwen2moe", "Qwen1.5-MoE, Qwen2-MoE", normalises=False, no_bias=_GATED_SHARED, classes=("Qwen2MoeForCausalLM",)
    ),
    Architecture("qwen3next", "Qwen3-Next", no_bias=_GATED_SHARED, residual="attn_residual"),
    Architecture("qwen35moe", "Qwen3.5-MoE", no_bias=_GATED_SHARED, residual="attn_residual"),
    Architecture("qwen4exp", "Qwen4 (experimental)", no_bias=_GATED_SHARED, no_statistics=_STREAMS),
    Architecture("qwen3vlmoe", "Qwen3-VL-MoE"),
    Architecture("olmoe", "OLMoE", normalises=False),
    Architecture("deepseek", "DeepSeek-MoE", normalises=False),
    _by_file("deepseek2", "DeepSeek-V2, -V3, -R1, Kimi-K2, GLM-4.7-Flash", "softmax"),
    _by_file("deepseek2-ocr", "DeepSeek-OCR", "softmax"),
    _by_file("deepseek32", "DeepSeek-V3.2"),
    _by_file("deepseek4", "DeepSeek-V4", "sqrt_softplus", no_statistics=_STREAMS),
    _by_file("mistral4", "Mistral 4", "softmax"),
    Architecture("mistral3", "Ministral 3 with experts"),
    _by_file("glm4moe", "GLM-4.5, GLM-4.6", "sigmoid"),
    _by_file("glm-dsa", "GLM-5", "sigmoid"),
    _by_file("glm5-next", "GLM-5-Next", "sigmoid", no_statistics=_STREAMS),
    Architecture("gpt-oss", "gpt-oss", "softmax_of_selected", normalises=False, activation="swiglu_oai"),
    Architecture("granite", "Granite with experts"),
    Architecture("granitemoe", "Granite-MoE"),
    Architecture("granitehybrid", "Granite 4"),
    Architecture("granite_swa", "Granite with sliding windows"),
    Architecture("dbrx", "DBRX"),
    Architecture(
        "llama4", "Llama-4", "sigmoid", normalises=False, fixed_counts=(128,),
        no_statistics="its gates enter before the experts, so no expert has an output before its gate",
    ),
    _by_file("dots1", "dots.llm1"),
    _by_file("dots3note", "dots3"),
    _by_file("afmoe", "AFM (Trinity)", "sigmoid"),
    Architecture("arctic", "Arctic", whole=r"ffn_norm_exps\.weight", no_statistics=_BESIDE),
    Architecture("bailingmoe", "Ling-MoE", normalises=None),
    _by_file("bailingmoe2", "Ling 2", residual="sa_out"),
    _by_file("bailingmoe3", "Ling 3", no_statistics=_UNNAMED),
    _by_file("cohere2moe", "Command with experts", "sigmoid", bias=None, no_statistics=_UNNAMED),
    Architecture("ernie4_5-moe", "ERNIE 4.5 MoE", bias=BIAS),
    _by_file("exaone-moe", "EXAONE-MoE"),
    Architecture(
        "gemma4", "Gemma 4 with experts", whole=r"ffn_gate_inp\.scale", activation="gelu", no_statistics=_LATENT
    ),
    Architecture("grok", "Grok", activation="gelu"),
    Architecture("hunyuan-moe", "Hunyuan-MoE"),
    _by_file("hy_v3", "Hunyuan 3", "sigmoid", bias="exp_probs_b"),
    _by_file("hy_v4", "Hunyuan 4", no_statistics=_STREAMS),
    Architecture("jamba", "Jamba", normalises=False),
    _by_file("kimi-k3", "Kimi-K3", activation="situ", no_statistics=_LATENT),
    _by_file("kimi-linear", "Kimi-Linear", normalises=True),
    _by_file("laguna", "Laguna", "sigmoid"),
    _by_file("lfm2moe", "LFM2-MoE", normalises=True, no_statistics=_UNNAMED),
    Architecture("llada-moe", "LLaDA-MoE", normalises=False),
    Architecture("maple", "Maple"),
    Architecture("mellum", "Mellum 2"),
    Architecture("mimo2", "MiMo-V2", "sigmoid", bias=BIAS),
    Architecture("minicpm", "MiniCPM with experts"),
    Architecture("minimax-01", "MiniMax-01"),
    _by_file("minimax-m2", "MiniMax-M2", normalises=True),
    _by_file("minimax-m3", "MiniMax-M3", activation="swiglu_oai"),
    Architecture(
        "nemotron_h_moe", "Nemotron-H-MoE", "sigmoid", normalises=None, bias=BIAS, activation="relu_sqr",
        no_statistics=_LATENT,
    ),
    Architecture("phimoe", "Phi-3.5-MoE", no_statistics=_UNNAMED),
    Architecture("rnd1", "RND1"),
    _by_file("smallthinker", "SmallThinker", normalises=True, bias=None, activation="relu", no_statistics=_LATENT),
    _by_file("step35", "Step-3.5", "sigmoid"),
    Architecture(
        "grovemoe", "GroveMoE",
        no_surgery="several of its experts share one more expert (chexps), so that none of them can go alone",
    ),
    Architecture("refact", "Refact", no_surgery="its graph in llama.cpp leaves the experts out"),
    Architecture("dflash", "DFlash drafts", no_surgery=_DRAFT),
    Architecture("nomic-bert-moe", "Nomic Embed v2", no_surgery=_EMBEDDING),
    Architecture("llama-embed", "Llama embeddings", no_surgery=_EMBEDDING),
)  # fmt: skip

ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType({row.name: row for row in _ROWS})
"""By llama.cpp's name."""
CLASSES: Final[Mapping[str, Architecture]] = MappingProxyType({name: row for row in _ROWS for name in row.classes})
"""By the Hugging Face classes that the converter takes."""


def architecture_named(name: str) -> Architecture | None:
    """Return a row by llama.cpp's name or by a Hugging Face class; None where there is none."""
    return ARCHITECTURES.get(name) or CLASSES.get(name)
