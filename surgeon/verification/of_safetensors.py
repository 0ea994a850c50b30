"""The safetensors part of `verify`."""

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

from shared.checkpoints import safetensors, safetensors_surgery
from shared.checkpoints.base import Range, check_plan, keeps_everything
from shared.checkpoints.safetensors import Checkpoint, TensorEntry, read_json
from shared.checkpoints.safetensors_experts import describe, moe_layers
from shared.kernel.records import SurgeryPlan, canonical_json
from shared.kernel.regular_files import open_regular
from surgeon.verification.comparison import Comparison, Verification, check_gaps, require

_NUMBERED: Final = re.compile(r"model\.layers\.(\d+)\.(\w+)\.experts\.(\d+)\.(.+)")
_LAYER: Final = re.compile(r"model\.layers\.(\d+)\.")


def _counts_experts(tensor: TensorEntry, n_experts: int) -> re.Match[str] | None:
    """Return the layer of a tensor of the base that has one entry an expert; by shape, not by the writer's rules."""
    name = tensor.name
    if "shared_expert" in name or _NUMBERED.fullmatch(name) or tensor.shape[:1] != (n_experts,):
        return None
    return _LAYER.match(name) if ".experts." in name or ".gate." in name or "router" in name else None


def verify_safetensors(base_path: Path, plan: SurgeryPlan, result_path: Path) -> Verification:
    """Compare a checkpoint directory with its base and plan; raises as `verify.verify`."""
    base, result = safetensors.parse(base_path), safetensors.parse(result_path)
    info = describe(base)
    check_plan(plan, info, base_path)
    require(plan.layout == "uniform", "safetensors have no biased layout", result_path)
    same = keeps_everything(plan, info)
    _config(base, result, plan, same)
    comparison = Comparison()
    old, new = base.tensors(), result.tensors()
    rank = {layer: row for row, layer in enumerate(moe_layers(old))}
    with ExitStack() as stack:
        files = {file.path: stack.enter_context(open_regular(file.path)) for file in (*base.files, *result.files)}

        def equal(ours: TensorEntry, at: int, theirs: TensorEntry, from_: int, length: int, what: str) -> None:
            left, right = files[ours.file], files[theirs.file]
            comparison.equal(left, ours.offset + at, right, theirs.offset + from_, length, what)

        for name, ours in new.items():
            source = _source_name(name, plan, rank)
            theirs = old.pop(source, None)
            require(theirs is not None, f"the tensor {name!r} has no source", ours.file)
            assert theirs is not None
            require(ours.dtype == theirs.dtype, f"the dtype of {name!r} changed", ours.file)
            if plan.merge is not None and _merged(ours, theirs, base.tensors(), plan, rank, files, comparison):
                continue
            match = _counts_experts(theirs, plan.n_experts)
            if match is None or same:
                require(ours.shape == theirs.shape, f"the shape of {name!r} changed", ours.file)
                equal(ours, 0, theirs, 0, theirs.n_bytes, name)
                continue
            kept = plan.kept[rank[int(match[1])]]
            require(ours.shape == (len(kept), *theirs.shape[1:]), f"the shape of {name!r} is {ours.shape}", ours.file)
            each = theirs.n_bytes // theirs.shape[0]
            for place, expert in enumerate(kept):
                equal(ours, place * each, theirs, expert * each, each, f"{name} expert {place} (base: {expert})")
        for file in result.files:
            used = [(tensor.offset, tensor.n_bytes) for tensor in file.tensors]
            check_gaps(file.path, files[file.path], used, file.data_offset, file.size_bytes)
    _nothing_else_missing(old, plan, rank, result_path)
    return Verification(
        format="safetensors", n_tensors=len(new), n_ranges=comparison.n_ranges, n_bytes=comparison.n_bytes,
        plan_sha256=plan.plan_hash(), identical=same,
    )  # fmt: skip


def _merged(
    ours: TensorEntry, theirs: TensorEntry, base: dict[str, TensorEntry], plan: SurgeryPlan, rank: dict[int, int],
    files: Mapping[Path, BinaryIO], comparison: Comparison,
) -> bool:  # fmt: skip
    """Compare a tensor of experts or routers with merged ones; False when it is none."""
    assert plan.merge is not None
    whole, numbered = _counts_experts(theirs, plan.n_experts), _NUMBERED.fullmatch(ours.name)
    match = whole or numbered
    if match is None:
        return False
    row = rank[int(match[1])]
    matrix = (plan.merge.routers if ours.name.endswith(".gate.weight") else plan.merge.experts)[row]
    if numbered is not None:
        matrix = (matrix[int(numbered[3])],)
        names = (ours.name.replace(f".experts.{numbered[3]}.", f".experts.{n}.") for n in range(plan.n_experts))
        old = [Range(one.file, one.offset, one.n_bytes) for one in map(base.__getitem__, names)]
    else:
        each = theirs.n_bytes // plan.n_experts
        old = [Range(theirs.file, theirs.offset + each * n, each) for n in range(plan.n_experts)]
    require(ours.shape == (theirs.shape if numbered else (len(matrix), *theirs.shape[1:])),
            f"the shape of {ours.name!r} is {ours.shape}", ours.file)  # fmt: skip
    comparison.merged(files[ours.file], ours.offset, old, theirs.dtype, matrix, ours.name)
    return True


def _source_name(name: str, plan: SurgeryPlan, rank: dict[int, int]) -> str:
    match = _NUMBERED.fullmatch(name)
    if match is None:
        return name
    kept = plan.kept[rank[int(match[1])]] if int(match[1]) in rank else ()
    place = int(match[3])
    return f"model.layers.{match[1]}.{match[2]}.experts.{kept[place] if place < len(kept) else -1}.{match[4]}"


def _nothing_else_missing(old: dict[str, TensorEntry], plan: SurgeryPlan, rank: dict[int, int], where: Path) -> None:
    for name in old:
        match = _NUMBERED.fullmatch(name)
        dropped = match is not None and int(match[3]) not in plan.kept[rank[int(match[1])]]
        require(dropped, f"the tensor {name!r} is missing", where)


def _config(base: Checkpoint, result: Checkpoint, plan: SurgeryPlan, same: bool) -> None:
    where = result.path / "config.json"
    expected = dict(base.config)
    if not same:
        expected["num_local_experts" if "num_local_experts" in expected else "num_experts"] = len(plan.kept[0])
        expected["num_experts_per_tok"] = plan.experts_per_token or expected["num_experts_per_tok"]
        written = read_json(result.path / safetensors_surgery.PLAN_FILE)
        require(written == json.loads(canonical_json(plan)), "another plan is recorded", where)
        for file in result.files:
            recorded = file.metadata.get(safetensors_surgery.PLAN_KEY)
            require(recorded == plan.plan_hash(), "another plan's hash", file.path)
    require(dict(result.config) == expected, "config.json is not what the plan makes of the base's", where)
