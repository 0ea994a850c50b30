"""distributed-llama's part of `verify`."""

from pathlib import Path

from shared.checkpoints import dllama
from shared.checkpoints.base import Range, check_plan, keeps_everything
from shared.kernel.records import SurgeryPlan
from shared.kernel.regular_files import open_regular
from surgeon.verification.comparison import Comparison, Verification, require


def verify_dllama(base_path: Path, plan: SurgeryPlan, result_path: Path) -> Verification:
    """Compare a .m file with its base and plan; raises as `verify.verify`."""
    base, result = dllama.parse(base_path), dllama.parse(result_path)
    info = dllama.describe(base)
    check_plan(plan, info, base_path)
    require(plan.layout == "uniform", "distributed-llama has no biased layout", result_path)
    expected = {
        **base.header, "n_experts": len(plan.kept[0]),
        "n_active_experts": plan.experts_per_token or info.experts_per_token,
    }  # fmt: skip
    require(result.header == expected, "the header is not what the plan makes of the base's", result_path)
    comparison = Comparison()
    with open_regular(base_path) as old, open_regular(result_path) as new:
        for theirs, ours in zip(base.sections, result.sections, strict=True):
            if theirs.layer is None or not theirs.n_experts:
                comparison.equal(new, ours.offset, old, theirs.offset, theirs.n_bytes, ours.name)
                continue
            each = theirs.n_bytes // theirs.n_experts
            if plan.merge is not None:
                is_router = theirs.name == "router"
                matrix = (plan.merge.routers if is_router else plan.merge.experts)[theirs.layer]
                experts = [Range(base_path, theirs.offset + each * n, each) for n in range(theirs.n_experts)]
                kind = "F32" if is_router else dllama.ggml_name(base.header["weights_float_type"])
                comparison.merged(new, ours.offset, experts, kind, matrix, f"layer {theirs.layer} {theirs.name}")
                continue
            for place, expert in enumerate(plan.kept[theirs.layer]):
                what = f"layer {theirs.layer} {theirs.name}, expert {place} (base: {expert})"
                comparison.equal(new, ours.offset + place * each, old, theirs.offset + expert * each, each, what)
    return Verification(
        format="dllama", n_tensors=len(result.sections), n_ranges=comparison.n_ranges, n_bytes=comparison.n_bytes,
        plan_sha256=plan.plan_hash(), identical=keeps_everything(plan, info),
    )  # fmt: skip
