"""Experts in GGUF files: which tensors are theirs, in which layers, and what llama.cpp's graph makes of them.

Every tensor that sounds like experts' or routers' must be known here or by its architecture's row: one that no rule
knows is refused, since copied whole it would silently belong to other experts after a cut.

Not here: the table of architectures (`architectures`), parsing (`gguf`), surgery (`gguf_surgery`).
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Final

from shared.checkpoints.architectures import ARCHITECTURES, GATINGS, Architecture, Gating
from shared.checkpoints.base import CheckpointInfo, Range
from shared.checkpoints.ggml_types import TENSOR_TYPES
from shared.checkpoints.gguf import GgufFile, TensorInfo, quantization_of, type_name
from shared.kernel.errors import ConfigurationError, DataError

PLAN_KEY: Final = "epi.surgery.plan"
HASH_KEY: Final = "epi.surgery.plan_sha256"
_F32: Final = 0

_EXPERT: Final = re.compile(r"blk\.(\d+)\.ffn_(?:gate|up|down|gate_up)_exps\.(weight|bias|scale|input_scale)")
_ROUTER: Final = re.compile(r"blk\.(\d+)\.ffn_gate_inp\.(weight|bias)")
_BIAS: Final = re.compile(r"blk\.(\d+)\.exp_probs_b(?:_vl)?(?:\.bias)?")
_WHOLE: Final = re.compile(r"blk\.\d+\.(?:ffn_(?:gate|up|down)_shexp\.\w+|ffn_gate_inp_shexp\.\w+)")
_SOUNDS_LIKE: Final = re.compile(r"exp|gate_inp|router|tid2eid|moe|chunk")
_UNSTACKED: Final = re.compile(r"blk\.\d+\.ffn_(?:gate|up|down)\.\d+\.weight")


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor whose outermost dimension counts experts."""

    layer: int
    what: str
    """`expert`, `router` or `bias` (of the selection)."""
    kind: str
    """`weight`, `bias`, `scale` or `input_scale`."""


@dataclass(frozen=True, slots=True)
class Routing:
    """How the graph of one file makes gates."""

    gating: Gating
    normalises: bool
    has_bias: bool
    """The file has a selection bias of its own."""

    @property
    def layouts_agree(self) -> bool:
        """Tell whether forbidding experts (`biased`) and removing them (`uniform`) are one surgery.

        They are not where a removed expert's share of the softmax goes to the others, and a forbidden one's does not:
        unless the gates are divided by their sum. A selection bias of the model's own weighs differently, too, against
        probabilities that have grown.
        """
        return self.gating != "softmax" or (self.normalises and not self.has_bias)


def part_of(name: str) -> Part | None:
    """Return what a tensor is, None for one that is not per expert."""
    for pattern, what in ((_EXPERT, "expert"), (_ROUTER, "router"), (_BIAS, "bias")):
        if match := pattern.fullmatch(name):
            return Part(int(match[1]), what, match[2] if what != "bias" else "bias")
    return None


def architecture_of(file: GgufFile) -> Architecture:
    """Return the row of a file's architecture.

    Raises:
        ConfigurationError: there is none, or it says that no surgery is possible.
    """
    row = ARCHITECTURES.get(file.architecture)
    if row is None:
        raise ConfigurationError(
            f"the architecture {file.architecture!r} is not supported", where=str(file.path),
            hint="docs/formats.md lists the architectures",
        )  # fmt: skip
    if row.no_surgery:
        raise ConfigurationError(f"{row.name} ({row.models}) cannot be cut: {row.no_surgery}", where=str(file.path))
    return row


def expert_layers(file: GgufFile) -> tuple[int, ...]:
    """Return the numbers of the layers that have experts, ascending: the rows of a plan.

    Layers that predict further tokens (`nextn_predict_layers`) are not among them: llama.cpp does not run them unless
    it drafts with them.
    """
    return tuple(layer for layer in _all_layers(file) if layer < _trunk(file))


def row_of_layer(file: GgufFile) -> dict[int, int]:
    """Return the plan's row for each layer with experts; layers that predict further tokens follow the last row."""
    rows = {layer: row for row, layer in enumerate(expert_layers(file))}
    last = max(rows.values(), default=0)
    return {layer: rows.get(layer, last) for layer in _all_layers(file)}


def _all_layers(file: GgufFile) -> list[int]:
    return sorted({int(match[1]) for tensor in file.tensors if (match := _EXPERT.fullmatch(tensor.name))})


def _trunk(file: GgufFile) -> int:
    blocks, further = (file.get(f"{file.architecture}.{key}") for key in ("block_count", "nextn_predict_layers"))
    return blocks - further if isinstance(blocks, int) and isinstance(further, int) else 1 << 30


def routing_of(file: GgufFile) -> Routing:
    """Return how the file's graph makes gates.

    Raises:
        ConfigurationError: no such architecture.
        DataError: the file has to say it and does not.
    """
    row = architecture_of(file)
    said = file.get(f"{row.name}.expert_gating_func") if row.gating_in_file else None
    gating = GATINGS.get(said) if isinstance(said, int) and said else row.gating
    if said is None and row.name == "deepseek2" and _is_glm_lite(file):
        gating = "sigmoid"
    if gating is None:
        raise DataError(f"the metadata key '{row.name}.expert_gating_func' is missing", where=str(file.path))
    normalises = row.normalises
    if normalises is None:
        normalises = file.get(f"{row.name}.expert_weights_norm") is True
    has_bias = any(_BIAS.fullmatch(tensor.name) for tensor in file.tensors)
    return Routing(gating, normalises, has_bias)


def _is_glm_lite(file: GgufFile) -> bool:
    """Tell GLM-4.7-Flash files that lack a gating function from DeepSeek-V2's, as llama.cpp does."""
    trunk, vocabulary = _trunk(file), file.get("deepseek2.vocab_size")
    blocks = file.get("deepseek2.block_count") if trunk == 1 << 30 else trunk
    return blocks in (47, 48) and vocabulary == 154_880


def describe(file: GgufFile) -> CheckpointInfo:
    """Return the facts of a Mixture-of-Experts model.

    Raises:
        ConfigurationError: a dense model, an architecture that cannot be cut, or a tensor that no rule knows.
        DataError: metadata and tensors contradict each other.
    """
    layers, where = expert_layers(file), str(file.path)
    if not layers and any(_UNSTACKED.fullmatch(tensor.name) for tensor in file.tensors):
        raise ConfigurationError("the experts are single tensors, as in old files", where=where,
                                 hint="convert the model again")  # fmt: skip
    if not layers:
        raise ConfigurationError(
            f"a dense model ({file.architecture or 'no architecture'}): there are no experts to operate on",
            where=where, hint="give a Mixture-of-Experts model",
        )  # fmt: skip
    row = architecture_of(file)
    if _is_biased(file):
        raise ConfigurationError(f"this {row.name} is a biased variant: it is cut from its base, not from itself",
                                 where=where)  # fmt: skip
    n_experts, active = file.integer("expert_count"), file.integer("expert_used_count")
    if not 1 <= active <= n_experts:
        raise DataError(f"{active} experts per token of {n_experts}", where=where)
    for tensor in file.tensors:
        _check_tensor(tensor, n_experts, row)
    for layer in layers:
        if file.tensor(f"blk.{layer}.ffn_gate_inp.weight") is None:
            raise DataError(f"layer {layer} has experts but no router", where=where)
    groups, used = _groups(file, n_experts)
    routing = routing_of(file)
    return CheckpointInfo(
        format="gguf", architecture=row.name, n_layers=len(layers), n_experts=n_experts, experts_per_token=active,
        size_bytes=file.size_bytes, quantization=quantization_of(file), expert_groups=groups, expert_groups_used=used,
        no_biased=why_no_bias(file, row), layouts_agree=routing.layouts_agree,
    )  # fmt: skip


def _check_tensor(tensor: TensorInfo, n_experts: int, row: Architecture) -> None:
    where = str(tensor.file)
    if part_of(tensor.name) is None:
        short = tensor.name.split(".", 2)[-1]
        known = _WHOLE.fullmatch(tensor.name) or (row.whole and re.fullmatch(row.whole, short))
        if tensor.name.startswith("blk.") and _SOUNDS_LIKE.search(short) and not known:
            raise ConfigurationError(
                f"the tensor {tensor.name!r} sounds like experts' or routers', and no rule of {row.name} says how it is"
                " cut", where=where,
            )  # fmt: skip
        return
    if tensor.outermost != n_experts:
        raise DataError(
            f"tensor {tensor.name!r} holds {tensor.outermost} experts, the metadata says {n_experts}", where=where
        )
    if math.prod(tensor.ne[:-1]) % TENSOR_TYPES[tensor.kind][1]:
        raise DataError(f"one expert's share of {tensor.name!r} is not a whole number of {type_name(tensor.kind)}"
                        " blocks", where=where)  # fmt: skip


def _groups(file: GgufFile, n_experts: int) -> tuple[int, int]:
    """Return how many groups the experts are in and how many of them a token uses; (0, 0) without groups."""
    groups, used = (file.get(f"{file.architecture}.expert_group_{key}") for key in ("count", "used_count"))
    if not isinstance(groups, int) or groups <= 1:
        return 0, 0
    if not isinstance(used, int) or not 0 < used < groups or n_experts % groups:
        raise DataError(f"{n_experts} experts in {groups} groups, of which {used!r} are used", where=str(file.path))
    return groups, used


def why_no_bias(file: GgufFile, row: Architecture) -> str:
    """Return why a file has no biased layout, "" where it has one."""
    if row.bias is None:
        return row.no_bias
    substitute = row.substitute
    if substitute is None:
        odd = [tensor.name for tensor in file.tensors if _BIAS.fullmatch(tensor.name) and tensor.kind != _F32]
        return f"its selection bias {odd[0]} is not F32" if odd else ""
    for tensor in file.tensors:
        short = tensor.name.split(".", 2)[-1] if tensor.name.startswith("blk.") else ""
        known = re.fullmatch(substitute.tensors, short) if short else tensor.name in _GLOBAL
        if not known:
            return f"it would run as {substitute.name}, which knows no tensor {tensor.name}"
    odd_key = next((key for key in _DIFFERS if file.get(f"{row.name}.{key}")), None)
    return f"it would run as {substitute.name}, which takes {odd_key} otherwise" if odd_key else ""


_GLOBAL: Final = frozenset({"token_embd.weight", "output_norm.weight", "output.weight"})
_DIFFERS: Final = ("attention.scale", "expert_weights_scale", "nextn_predict_layers")
"""Metadata that a graph and its substitute's do not both go by, unless it is 0."""


def _is_biased(file: GgufFile) -> bool:
    plan = file.get(PLAN_KEY)
    if not isinstance(plan, str):
        return False
    try:
        return bool(json.loads(plan).get("layout") == "biased")
    except (ValueError, AttributeError) as error:
        raise DataError(f"the metadata key {PLAN_KEY!r} holds no plan", where=str(file.path)) from error


def routers(file: GgufFile) -> list[tuple[str, Range]]:
    """Return ggml type and place of each layer's router, in the order of the layers."""
    found = [file.tensor(f"blk.{layer}.ffn_gate_inp.weight") for layer in expert_layers(file)]
    return [(type_name(one.kind), Range(one.file, one.offset, one.n_bytes)) for one in found if one is not None]
