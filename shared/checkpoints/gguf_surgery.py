"""Surgery on GGUF as a recipe of byte ranges: the layouts `uniform` and `biased`.

`uniform` removes experts: every per-expert tensor keeps the byte ranges of the kept experts, the router likewise, and
`expert_count` says so.

`biased` leaves all experts in the file and makes the dropped ones unselectable in stock llama.cpp. The file is written
with the architecture `hy_v3`, whose graph is that of qwen3moe plus an optional bias `blk.L.exp_probs_b` that is added
to the probabilities for the selection only, and a shared expert, which is all zeros here. The new tensors lie behind
the base's, whose data stays as it is.

A split model comes out as one file. The output depends on the base's bytes and the plan only, so that a node and the
surgeon get the same hash.
"""

import math
import struct
from typing import Final

from shared.checkpoints.base import (
    CheckpointInfo,
    Inline,
    OutputFile,
    Piece,
    Range,
    Zeros,
    check_plan,
    keeps_everything,
)
from shared.checkpoints.experts import expert_ranges, kept_pieces
from shared.checkpoints.gguf import (
    EXPERT_TENSOR,
    GgufFile,
    TensorInfo,
    describe,
    expert_layers,
    is_per_expert,
    layer_of,
    type_name,
)
from shared.checkpoints.gguf_cursor import ARRAY
from shared.checkpoints.gguf_writing import Header, output_of
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import SurgeryPlan, canonical_json

BIASED_ARCHITECTURE: Final = "hy_v3"
DROPPED_BIAS: Final = -1e9
"""Added to a probability in 0..1, so that no dropped expert can be among the selected."""
SHARED_WIDTH: Final = 32
"""Width of the shared expert of zeros that the graph of hy_v3 always adds: the smallest that suits every kernel."""
PLAN_KEY: Final = "epi.surgery.plan"
HASH_KEY: Final = "epi.surgery.plan_sha256"
_GATING_SOFTMAX: Final = 1
_F32: Final = 0


def recipe(file: GgufFile, plan: SurgeryPlan) -> list[OutputFile]:
    """Describe the file after surgery: one.

    Raises:
        ConfigurationError: dense or unknown model, a plan that does not fit, or a layout the model cannot have.
        DataError: a contradictory file.
    """
    info = describe(file)
    check_plan(plan, info, file.path)
    if keeps_everything(plan, info) and file.n_parts == 1:
        return [OutputFile("", (Range(file.path, 0, file.size_bytes),))]
    header = _marked(file, plan)
    if plan.layout == "biased":
        return [_biased(file, plan, info, header)]
    return [_uniform(file, plan, header)]


def _marked(file: GgufFile, plan: SurgeryPlan) -> Header:
    """Return the base's metadata with the plan's mark, and its K if it has one."""
    header = Header(file)
    if plan.experts_per_token is not None:
        header.set_uint32(f"{file.architecture}.expert_used_count", plan.experts_per_token)
    header.set_text(PLAN_KEY, canonical_json(plan))
    header.set_text(HASH_KEY, plan.plan_hash().encode())
    return header


def _uniform(file: GgufFile, plan: SurgeryPlan, header: Header) -> OutputFile:
    row_of = {layer: row for row, layer in enumerate(expert_layers(file))}
    header.set_uint32(f"{file.architecture}.expert_count", len(plan.kept[0]))
    tensors: list[tuple[TensorInfo, list[Piece]]] = []
    for tensor in file.tensors:
        if not is_per_expert(tensor.name):
            tensors.append((tensor, [Range(tensor.file, tensor.offset, tensor.n_bytes)]))
            continue
        row = row_of[layer_of(tensor.name)]
        pieces = per_expert_pieces(tensor, plan, row)
        n_bytes = sum(piece.length for piece in pieces)
        cut = TensorInfo(tensor.name, (*tensor.ne[:-1], len(plan.kept[row])), tensor.kind, 0, n_bytes, tensor.file)
        tensors.append((cut, pieces))
    return output_of(file, header, tensors)


def per_expert_pieces(tensor: TensorInfo, plan: SurgeryPlan, row: int) -> list[Piece]:
    """Return what a uniform plan leaves of a tensor of the `row`-th layer with experts.

    Raises:
        ConfigurationError: the plan merges, and this tensor cannot be.
    """
    is_expert = EXPERT_TENSOR.fullmatch(tensor.name)
    matrix = None
    if plan.merge is not None:
        if is_expert is not None and is_expert[3] == "scale":
            raise ConfigurationError("experts with scales cannot be merged", where=tensor.name)
        matrix = (plan.merge.experts if is_expert is not None else plan.merge.routers)[row]
    experts = expert_ranges(tensor.file, tensor.offset, tensor.n_bytes, tensor.outermost)
    return kept_pieces(experts, plan.kept[row], type_name(tensor.kind), matrix)


def _biased(file: GgufFile, plan: SurgeryPlan, info: CheckpointInfo, header: Header) -> OutputFile:
    if info.architecture != "qwen3moe":
        raise ConfigurationError(
            f"the biased layout exists for qwen3moe only, this model is {info.architecture}", where=str(file.path),
            hint="use the same number of experts in every layer and the layout 'uniform'",
        )  # fmt: skip
    for key in (f"{info.architecture}.expert_count", f"{info.architecture}.expert_used_count"):
        entry = file.entry(key)
        if entry is not None and entry.kind == ARRAY:
            raise ConfigurationError(f"{key} is an array", where=str(file.path))
    header.rename_prefix(f"{info.architecture}.", f"{BIASED_ARCHITECTURE}.")
    header.set_text("general.architecture", BIASED_ARCHITECTURE.encode())
    header.set_uint32(f"{BIASED_ARCHITECTURE}.expert_gating_func", _GATING_SOFTMAX)
    header.set_bool(f"{BIASED_ARCHITECTURE}.expert_weights_norm", True)
    header.set_uint32(f"{BIASED_ARCHITECTURE}.expert_shared_feed_forward_length", SHARED_WIDTH)
    n_embd = file.integer("embedding_length")
    tensors: list[tuple[TensorInfo, list[Piece]]] = [
        (tensor, [Range(tensor.file, tensor.offset, tensor.n_bytes)]) for tensor in file.tensors
    ]
    for layer, kept in zip(expert_layers(file), plan.kept, strict=True):
        chosen = set(kept)
        bias = [0.0 if expert in chosen else DROPPED_BIAS for expert in range(info.n_experts)]
        data = struct.pack(f"<{len(bias)}f", *bias)
        tensors.append((_f32(file, f"blk.{layer}.exp_probs_b", (info.n_experts,)), [Inline(data)]))
        for part, ne in (
            ("gate", (n_embd, SHARED_WIDTH)), ("up", (n_embd, SHARED_WIDTH)), ("down", (SHARED_WIDTH, n_embd)),
        ):  # fmt: skip
            zeros = Zeros(4 * n_embd * SHARED_WIDTH)
            tensors.append((_f32(file, f"blk.{layer}.ffn_{part}_shexp.weight", ne), [zeros]))
    return output_of(file, header, tensors)


def _f32(file: GgufFile, name: str, ne: tuple[int, ...]) -> TensorInfo:
    return TensorInfo(name, ne, _F32, 0, 4 * math.prod(ne), file.path)
