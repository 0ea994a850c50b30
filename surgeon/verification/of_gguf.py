"""GGUF's part of `verify`."""

import hashlib
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

from shared.checkpoints import gguf
from shared.checkpoints.base import CheckpointInfo, Range, check_plan, keeps_everything
from shared.checkpoints.gguf import GgufFile, TensorInfo
from shared.kernel.records import SurgeryPlan, canonical_json
from surgeon.verification.comparison import Comparison, Verification, check_gaps, require

_BIAS: Final = -1e9
_BIASED: Final = "hy_v3"


def verify_gguf(base_path: Path, plan: SurgeryPlan, result_path: Path) -> Verification:
    """Compare a GGUF with its base and plan; raises as `verify.verify`."""
    base, result = gguf.load(base_path), gguf.parse(result_path)
    info = gguf.describe(base)
    check_plan(plan, info, base_path)
    comparison = Comparison()
    identical = keeps_everything(plan, info) and base.n_parts == 1
    with ExitStack() as stack:
        result_file = stack.enter_context(result_path.open("rb"))
        base_files: dict[Path, BinaryIO] = {}
        for path in {tensor.file for tensor in base.tensors}:
            base_files[path] = stack.enter_context(path.open("rb"))
        if identical:
            require(base.size_bytes == result.size_bytes, "not a copy of the base, as the plan asks for", result_path)
            comparison.equal(result_file, 0, base_files[base_path], 0, base.size_bytes, "whole file")
        else:
            _metadata(base, result, plan, info)
            _tensors(base, base_files, result, result_file, plan, comparison)
            used = [(tensor.offset, tensor.n_bytes) for tensor in result.tensors]
            check_gaps(result_path, result_file, used, result.data_offset, result.size_bytes)
    return Verification(
        format="gguf", n_tensors=len(result.tensors), n_ranges=comparison.n_ranges, n_bytes=comparison.n_bytes,
        plan_sha256=plan.plan_hash(), identical=identical,
    )  # fmt: skip


def _metadata(base: GgufFile, result: GgufFile, plan: SurgeryPlan, info: CheckpointInfo) -> None:
    prefix = _BIASED if plan.layout == "biased" else base.architecture
    where = result.path
    changed: dict[str, object] = {
        "general.architecture": prefix,
        f"{prefix}.expert_count": len(plan.kept[0]) if plan.layout == "uniform" else info.n_experts,
        f"{prefix}.expert_used_count": plan.experts_per_token or info.experts_per_token,
        "epi.surgery.plan": canonical_json(plan).decode(),
        "epi.surgery.plan_sha256": hashlib.sha256(canonical_json(plan)).hexdigest(),
    }
    if plan.layout == "biased":
        changed |= {
            f"{prefix}.expert_gating_func": 1, f"{prefix}.expert_weights_norm": True,
            f"{prefix}.expert_shared_feed_forward_length": 32,
        }  # fmt: skip
    for key, value in changed.items():
        require(result.get(key) == value, f"metadata {key!r} is {result.get(key)!r:.80}, not {value!r:.80}", where)
    old = {entry.key: entry for entry in base.entries}
    for entry in result.entries:
        if entry.key in changed:
            continue
        name = base.architecture + entry.key[len(prefix) :] if entry.key.startswith(f"{prefix}.") else entry.key
        source = old.get(name)
        same = source is not None and source.raw[source.value_at - 4 :] == entry.raw[entry.value_at - 4 :]
        require(same, f"metadata {entry.key!r} is not the base's", where)
    require(len(result.entries) == len(base.entries) + len(set(changed) - _renamed(base, prefix)),
            "metadata entries are missing", where)  # fmt: skip


def _renamed(base: GgufFile, prefix: str) -> set[str]:
    old = f"{base.architecture}."
    return {f"{prefix}.{entry.key[len(old) :]}" if entry.key.startswith(old) else entry.key for entry in base.entries}


def _tensors(
    base: GgufFile,
    base_files: dict[Path, BinaryIO],
    result: GgufFile,
    result_file: BinaryIO,
    plan: SurgeryPlan,
    comparison: Comparison,
) -> None:
    where = result.path
    by_name = {tensor.name: tensor for tensor in base.tensors}
    rank = {layer: row for row, layer in enumerate(gguf.expert_layers(base))}
    added: set[str] = set()
    for tensor in result.tensors:
        source = by_name.pop(tensor.name, None)
        if source is None:
            require(plan.layout == "biased", f"the tensor {tensor.name!r} is not the base's", where)
            _added(tensor, base, result_file, plan.kept[rank.get(gguf.layer_of(tensor.name), 0)], comparison)
            added.add(tensor.name)
            continue
        base_file = base_files[source.file]
        require(tensor.kind == source.kind, f"the type of {tensor.name!r} changed", where)
        if plan.layout == "uniform" and gguf.is_per_expert(tensor.name):
            kept = plan.kept[rank[gguf.layer_of(tensor.name)]]
            require(tensor.ne == (*source.ne[:-1], len(kept)), f"the shape of {tensor.name!r} is {tensor.ne}", where)
            each = tensor.n_bytes // len(kept)
            if plan.merge is not None:
                is_router = gguf.EXPERT_TENSOR.fullmatch(tensor.name) is None
                matrix = (plan.merge.routers if is_router else plan.merge.experts)[rank[gguf.layer_of(tensor.name)]]
                old = [Range(source.file, source.offset + each * expert, each) for expert in range(plan.n_experts)]
                kind = gguf.type_name(tensor.kind)
                comparison.merged(result_file, tensor.offset, old, kind, matrix, tensor.name)
                continue
            for place, expert in enumerate(kept):
                comparison.equal(
                    result_file, tensor.offset + place * each, base_file, source.offset + expert * each, each,
                    f"{tensor.name} expert {place} (base: {expert})",
                )  # fmt: skip
        else:
            require(tensor.ne == source.ne, f"the shape of {tensor.name!r} is {tensor.ne}", where)
            comparison.equal(result_file, tensor.offset, base_file, source.offset, tensor.n_bytes, tensor.name)
    require(not by_name, f"tensors are missing: {', '.join(list(by_name)[:3])}", where)
    if plan.layout == "biased":
        require(len(added) == 4 * len(plan.kept), "tensors of the biased layout are missing", where)


def _added(tensor: TensorInfo, base: GgufFile, file: BinaryIO, kept: tuple[int, ...], comparison: Comparison) -> None:
    part = tensor.name.split(".", 2)[-1]
    n_experts, n_embd = base.integer("expert_count"), base.integer("embedding_length")
    shapes = {
        "exp_probs_b": (n_experts,), "ffn_gate_shexp.weight": (n_embd, 32), "ffn_up_shexp.weight": (n_embd, 32),
        "ffn_down_shexp.weight": (32, n_embd),
    }  # fmt: skip
    fine = shapes.get(part) == tensor.ne and tensor.kind == 0
    require(fine, f"the tensor {tensor.name!r} {tensor.ne} does not belong here", base.path)
    if part == "exp_probs_b":
        values = [0.0 if expert in kept else _BIAS for expert in range(n_experts)]
        comparison.exactly(file, tensor.offset, struct.pack(f"<{n_experts}f", *values), tensor.name)
    else:
        comparison.exactly(file, tensor.offset, bytes(tensor.n_bytes), tensor.name)
