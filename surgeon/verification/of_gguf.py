"""GGUF's part of `verify`. Which tensors must be cut is judged here, by shape and name, not by the writer's rules."""

import hashlib
import re
import struct
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from shared.checkpoints import gguf
from shared.checkpoints.base import CheckpointInfo, Range, check_plan, keeps_everything
from shared.checkpoints.gguf import GgufFile, TensorInfo
from shared.checkpoints.gguf_experts import describe
from shared.kernel.records import SurgeryPlan, canonical_json
from shared.kernel.regular_files import open_regular
from surgeon.verification.comparison import Comparison, Verification, check_gaps, require

_BIAS: Final = -1e9
_F32: Final = 0


@dataclass(frozen=True)
class _Substitute:
    """What a biased file of an architecture without a selection bias is written as; the writer's table is another."""

    name: str
    bias: str
    metadata: Mapping[str, object]
    shared: bool = False


_SUBSTITUTES: Final = {
    "qwen3moe": _Substitute(
        "hy_v3", "exp_probs_b",
        {"expert_gating_func": 1, "expert_weights_norm": True, "expert_shared_feed_forward_length": 32}, shared=True,
    ),
    "llama": _Substitute(
        "ernie4_5-moe", "exp_probs_b.bias",
        {"interleave_moe_layer_step": 1, "leading_dense_block_count": 0, "expert_shared_feed_forward_length": 0},
    ),
}  # fmt: skip


def verify_gguf(base_path: Path, plan: SurgeryPlan, result_path: Path) -> Verification:
    """Compare a GGUF with its base and plan; raises as `verify.verify`."""
    base, result = gguf.load(base_path), gguf.parse(result_path)
    info = describe(base)
    check_plan(plan, info, base_path)
    comparison = Comparison()
    identical = keeps_everything(plan, info) and base.n_parts == 1
    with ExitStack() as stack:
        result_file = stack.enter_context(open_regular(result_path))
        base_files: dict[Path, BinaryIO] = {}
        for path in {tensor.file for tensor in base.tensors}:
            base_files[path] = stack.enter_context(open_regular(path))
        if identical:
            require(base.size_bytes == result.size_bytes, "not a copy of the base, as the plan asks for", result_path)
            comparison.equal(result_file, 0, base_files[base_path], 0, base.size_bytes, "whole file")
        else:
            _metadata(base, result, plan, info)
            _Tensors(base, base_files, result, result_file, plan, comparison).compare()
            used = [(tensor.offset, tensor.n_bytes) for tensor in result.tensors]
            check_gaps(result_path, result_file, used, result.data_offset, result.size_bytes)
    return Verification(
        format="gguf", n_tensors=len(result.tensors), n_ranges=comparison.n_ranges, n_bytes=comparison.n_bytes,
        plan_sha256=plan.plan_hash(), identical=identical,
    )  # fmt: skip


def _metadata(base: GgufFile, result: GgufFile, plan: SurgeryPlan, info: CheckpointInfo) -> None:
    substitute = _SUBSTITUTES.get(base.architecture) if plan.layout == "biased" else None
    prefix = substitute.name if substitute is not None else base.architecture
    where = result.path
    changed: dict[str, object] = {
        "general.architecture": prefix,
        f"{prefix}.expert_count": len(plan.kept[0]) if plan.layout == "uniform" else info.n_experts,
        f"{prefix}.expert_used_count": plan.experts_per_token or info.experts_per_token,
        "epi.surgery.plan": canonical_json(plan).decode(),
        "epi.surgery.plan_sha256": hashlib.sha256(canonical_json(plan)).hexdigest(),
    }
    if substitute is not None:
        changed |= {f"{prefix}.{key}": value for key, value in substitute.metadata.items()}
        if substitute.name == "ernie4_5-moe":
            changed[f"{prefix}.expert_feed_forward_length"] = base.get("llama.feed_forward_length")
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


def _counts_experts(tensor: TensorInfo, n_experts: int, n_embd: object) -> bool:
    """Tell whether a tensor of the base has one entry an expert: by its shape, and by its name where that is not clear.

    A vector as long as the hidden state is none where both numbers are the same and its name speaks of a norm or of the
    router's input scale; nor is anything of the experts that all tokens share.
    """
    name = tensor.name
    if not name.startswith("blk.") or tensor.outermost != n_experts or "shexp" in name:
        return False
    if n_experts == n_embd and len(tensor.ne) == 1 and ("norm" in name or name.endswith("ffn_gate_inp.scale")):
        return False
    return "exp" in name or "gate_inp" in name


class _Tensors:
    """The comparison of all tensors."""

    def __init__(
        self, base: GgufFile, base_files: dict[Path, BinaryIO], result: GgufFile, result_file: BinaryIO,
        plan: SurgeryPlan, comparison: Comparison,
    ) -> None:  # fmt: skip
        self._base, self._base_files, self._result, self._result_file = base, base_files, result, result_file
        self._plan, self._comparison = plan, comparison
        self._n_embd = base.get(f"{base.architecture}.embedding_length")
        blocks, further = (base.get(f"{base.architecture}.{key}") for key in ("block_count", "nextn_predict_layers"))
        self._trunk = blocks - further if isinstance(blocks, int) and isinstance(further, int) else 1 << 30
        with_experts = {_layer(tensor) for tensor in base.tensors if re.search(r"_exps\.weight$", tensor.name)}
        self._layers = sorted(layer for layer in with_experts if layer < self._trunk)

    def compare(self) -> None:
        """Compare each tensor of the result with what it must hold.

        Raises:
            DataError: it holds something else, or a tensor is missing.
        """
        where = self._result.path
        by_name = {tensor.name: tensor for tensor in self._base.tensors}
        biases: set[int] = set()
        for tensor in self._result.tensors:
            source = by_name.pop(tensor.name, None)
            if self._plan.layout == "biased" and self._is_bias(tensor):
                self._bias(tensor, source)
                biases.add(_layer(tensor))
            elif source is None:
                self._added(tensor)
            else:
                self._one(tensor, source)
        require(not by_name, f"tensors are missing: {', '.join(list(by_name)[:3])}", where)
        require(self._plan.layout == "uniform" or biases == set(self._layers), "selection biases are missing", where)

    def _row(self, tensor: TensorInfo) -> int:
        layer = _layer(tensor)
        return self._layers.index(layer) if layer < self._trunk else len(self._layers) - 1

    def _one(self, tensor: TensorInfo, source: TensorInfo) -> None:
        where, plan, comparison = self._result.path, self._plan, self._comparison
        base_file = self._base_files[source.file]
        require(tensor.kind == source.kind, f"the type of {tensor.name!r} changed", where)
        if plan.layout == "biased" or not _counts_experts(source, plan.n_experts, self._n_embd):
            require(tensor.ne == source.ne, f"the shape of {tensor.name!r} is {tensor.ne}", where)
            comparison.equal(self._result_file, tensor.offset, base_file, source.offset, tensor.n_bytes, tensor.name)
            return
        row = self._row(source)
        kept = plan.kept[row]
        require(tensor.ne == (*source.ne[:-1], len(kept)), f"the shape of {tensor.name!r} is {tensor.ne}", where)
        each = tensor.n_bytes // len(kept)
        if plan.merge is not None:
            matrix = (plan.merge.routers if "gate_inp" in tensor.name else plan.merge.experts)[row]
            old = [Range(source.file, source.offset + each * expert, each) for expert in range(plan.n_experts)]
            kind = gguf.type_name(tensor.kind)
            comparison.merged(self._result_file, tensor.offset, old, kind, matrix, tensor.name)
            return
        for place, expert in enumerate(kept):
            comparison.equal(
                self._result_file, tensor.offset + place * each, base_file, source.offset + expert * each, each,
                f"{tensor.name} expert {place} (base: {expert})",
            )  # fmt: skip

    def _is_bias(self, tensor: TensorInfo) -> bool:
        return "exp_probs_b" in tensor.name and _layer(tensor) < self._trunk

    def _bias(self, tensor: TensorInfo, source: TensorInfo | None) -> None:
        n_experts, kept = self._plan.n_experts, set(self._plan.kept[self._row(tensor)])
        fine = tensor.ne == (n_experts,) and tensor.kind == _F32
        require(fine, f"the tensor {tensor.name!r} {tensor.ne} is no selection bias", self._result.path)
        substitute = _SUBSTITUTES.get(self._base.architecture)
        if source is None and substitute is not None:
            require(tensor.name.split(".", 2)[2] == substitute.bias, f"{tensor.name!r} is not {substitute.name}'s",
                    self._result.path)  # fmt: skip
        own = bytes(4 * n_experts)
        if source is not None:
            stream = self._base_files[source.file]
            stream.seek(source.offset)
            own = stream.read(source.n_bytes)
        dropped = struct.pack("<f", _BIAS)
        expected = b"".join(own[4 * e : 4 * e + 4] if e in kept else dropped for e in range(n_experts))
        self._comparison.exactly(self._result_file, tensor.offset, expected, tensor.name)

    def _added(self, tensor: TensorInfo) -> None:
        substitute = _SUBSTITUTES.get(self._base.architecture)
        shapes: dict[str, tuple[object, ...]] = {
            "ffn_gate_shexp.weight": (self._n_embd, 32), "ffn_up_shexp.weight": (self._n_embd, 32),
            "ffn_down_shexp.weight": (32, self._n_embd),
        }  # fmt: skip
        belongs = (
            self._plan.layout == "biased" and substitute is not None and substitute.shared and tensor.kind == _F32
            and shapes.get(tensor.name.split(".", 2)[-1]) == tensor.ne
        )  # fmt: skip
        require(belongs, f"the tensor {tensor.name!r} {tensor.ne} is not the base's", self._result.path)
        self._comparison.exactly(self._result_file, tensor.offset, bytes(tensor.n_bytes), tensor.name)


def _layer(tensor: TensorInfo) -> int:
    number = tensor.name.split(".", 2)[1] if tensor.name.startswith("blk.") else ""
    return int(number) if number.isdecimal() else 1 << 30
