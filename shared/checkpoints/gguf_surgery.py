"""Surgery on GGUF as a recipe of byte ranges: the layouts `uniform` and `biased`.

`uniform` removes experts: every per-expert tensor keeps the byte ranges of the kept experts, the router likewise, and
`expert_count` says so.

`biased` leaves all experts in the file and makes the dropped ones unselectable in stock llama.cpp, by the selection
bias `blk.L.exp_probs_b`: it is added to the probabilities for the selection only. Where the architecture's own graph
reads one, the file stays what it is and the bias is written, the model's own kept where it has one. Where only a
substitute's graph does (`architectures.Substitute`), the file is written as the substitute, with what that graph needs
beside. New tensors lie behind the base's, whose data stays as it is.

A split model comes out as one file. The output depends on the base's bytes and the plan only, so that a node and the
surgeon get the same hash.
"""

import math
import struct
from typing import Final

from shared.checkpoints.architectures import Substitute
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
from shared.checkpoints.gguf import GgufFile, TensorInfo, type_name
from shared.checkpoints.gguf_experts import (
    HASH_KEY,
    PLAN_KEY,
    architecture_of,
    describe,
    expert_layers,
    part_of,
    row_of_layer,
    why_no_bias,
)
from shared.checkpoints.gguf_writing import Header, output_of
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import SurgeryPlan, canonical_json
from shared.kernel.regular_files import open_regular

DROPPED_BIAS: Final = -1e9
"""Takes the place of a bias, so that no dropped expert can be among the selected."""
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
    rows = row_of_layer(file)
    header.set_uint32(f"{file.architecture}.expert_count", len(plan.kept[0]))
    tensors: list[tuple[TensorInfo, list[Piece]]] = []
    for tensor in file.tensors:
        part = part_of(tensor.name)
        if part is None:
            tensors.append((tensor, [Range(tensor.file, tensor.offset, tensor.n_bytes)]))
            continue
        row = rows[part.layer]
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
    part = part_of(tensor.name)
    assert part is not None
    matrix = None
    if plan.merge is not None:
        if part.kind not in ("weight", "bias") or part.what == "bias":
            raise ConfigurationError("experts with scales or selection biases cannot be merged", where=tensor.name)
        matrix = (plan.merge.experts if part.what == "expert" else plan.merge.routers)[row]
    experts = expert_ranges(tensor.file, tensor.offset, tensor.n_bytes, tensor.outermost)
    return kept_pieces(experts, plan.kept[row], type_name(tensor.kind), matrix)


def _biased(file: GgufFile, plan: SurgeryPlan, info: CheckpointInfo, header: Header) -> OutputFile:
    architecture = architecture_of(file)
    if refused := why_no_bias(file, architecture):
        raise ConfigurationError(
            f"{architecture.name} ({architecture.models}) has no biased layout: {refused}", where=str(file.path),
            hint="use the same number of experts in every layer and the layout 'uniform'",
        )  # fmt: skip
    if architecture.substitute is not None:
        _become(architecture.substitute, file, header)
    layers = expert_layers(file)
    kept_in = dict(zip(layers, plan.kept, strict=True))
    tensors: list[tuple[TensorInfo, list[Piece]]] = []
    biased: set[int] = set()
    for tensor in file.tensors:
        part = part_of(tensor.name)
        pieces: list[Piece] = [Range(tensor.file, tensor.offset, tensor.n_bytes)]
        if part is not None and part.what == "bias" and part.layer in kept_in:
            pieces = [Inline(_bias(kept_in[part.layer], info.n_experts, tensor))]
            biased.add(part.layer)
        tensors.append((tensor, pieces))
    for layer in layers:
        if layer not in biased:
            name = f"blk.{layer}.{architecture.bias_tensor}"
            tensors.append((_f32(file, name, (info.n_experts,)), [Inline(_bias(kept_in[layer], info.n_experts, None))]))
        if architecture.substitute is not None:
            tensors.extend(_shared_experts(architecture.substitute, file, layer))
    return output_of(file, header, tensors)


def _become(substitute: Substitute, file: GgufFile, header: Header) -> None:
    """Write the metadata that makes the substitute's graph the file's."""
    header.rename_prefix(f"{file.architecture}.", f"{substitute.name}.")
    header.set_text("general.architecture", substitute.name.encode())
    for key, value in substitute.settings.items():
        if isinstance(value, bool):
            header.set_bool(f"{substitute.name}.{key}", value)
        else:
            header.set_uint32(f"{substitute.name}.{key}", value)
    for key, source in substitute.copied.items():
        header.set_uint32(f"{substitute.name}.{key}", file.integer(source))
    if substitute.shared_width:
        header.set_uint32(f"{substitute.name}.expert_shared_feed_forward_length", substitute.shared_width)


def _shared_experts(substitute: Substitute, file: GgufFile, layer: int) -> list[tuple[TensorInfo, list[Piece]]]:
    if not substitute.shared_width:
        return []
    n_embd, width = file.integer("embedding_length"), substitute.shared_width
    shapes = {"gate": (n_embd, width), "up": (n_embd, width), "down": (width, n_embd)}
    return [
        (_f32(file, f"blk.{layer}.ffn_{part}_shexp.weight", ne), [Zeros(4 * n_embd * width)])
        for part, ne in shapes.items()
    ]


def _bias(kept: tuple[int, ...], n_experts: int, own: TensorInfo | None) -> bytes:
    """Return the selection bias: the model's own or 0 for kept experts."""
    values = [0.0] * n_experts
    if own is not None:
        with open_regular(own.file) as stream:
            stream.seek(own.offset)
            values = list(struct.unpack(f"<{n_experts}f", stream.read(own.n_bytes)))
    chosen = set(kept)
    return struct.pack(f"<{n_experts}f", *(values[e] if e in chosen else DROPPED_BIAS for e in range(n_experts)))


def _f32(file: GgufFile, name: str, ne: tuple[int, ...]) -> TensorInfo:
    return TensorInfo(name, ne, _F32, 0, 4 * math.prod(ne), file.path)
