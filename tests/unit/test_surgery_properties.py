"""Surgery over random architectures, plans and quantisation types, read back with other libraries."""

import tempfile
from pathlib import Path

import gguf as gguf_library
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.checkpoints import surgery
from shared.kernel.records import SurgeryPlan
from surgeon.planning import allocation
from surgeon.verification.verify import verify

TYPES = [
    gguf_library.GGMLQuantizationType[name]
    for name in (
        "F32",
        "F16",
        "BF16",
        "Q4_0",
        "Q5_1",
        "Q8_0",
        "Q2_K",
        "Q3_K",
        "Q4_K",
        "Q5_K",
        "Q6_K",
        "IQ4_NL",
        "IQ2_XXS",
    )
]
PARTS = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")


@st.composite
def models(draw: st.DrawFn) -> dict:
    n_experts = draw(st.integers(2, 9))
    return {
        "arch": draw(st.sampled_from(["qwen3moe", "qwen3moe", "qwen2moe", "llama"])),
        "layers": draw(st.integers(1, 4)), "experts": n_experts, "active": draw(st.integers(1, n_experts)),
        "types": draw(st.lists(st.sampled_from(TYPES), min_size=3, max_size=3)),
        "alignment": draw(st.sampled_from([32, 64, 8])),
        "rows": draw(st.integers(1, 3)),
        "order": draw(st.randoms(use_true_random=False)),
        "seed": draw(st.integers(0, 2**32)),
    }  # fmt: skip


def write_model(path: Path, model: dict) -> None:
    random = np.random.default_rng(model["seed"])
    writer = gguf_library.GGUFWriter(path, model["arch"])
    writer.add_custom_alignment(model["alignment"])
    writer.add_expert_count(model["experts"])
    writer.add_expert_used_count(model["active"])
    writer.add_embedding_length(256)
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc", "ä"])
    tensors = []
    for layer in range(model["layers"]):
        tensors.append(
            (f"blk.{layer}.ffn_gate_inp.weight", gguf_library.GGMLQuantizationType.F32, (model["experts"], 256))
        )
        tensors.append((f"blk.{layer}.attn_norm.weight", gguf_library.GGMLQuantizationType.F32, (3,)))  # type: ignore[arg-type]
        for part, kind in zip(PARTS, model["types"], strict=True):
            tensors.append((f"blk.{layer}.{part}.weight", kind, (model["experts"], model["rows"], 256)))  # type: ignore[arg-type]
    model["order"].shuffle(tensors)
    for name, kind, shape in tensors:
        block, block_bytes = gguf_library.GGML_QUANT_SIZES[kind]
        if kind == gguf_library.GGMLQuantizationType.F32:
            writer.add_tensor(name, random.normal(size=shape).astype(np.float32))
        else:
            raw = random.integers(0, 256, (*shape[:-1], shape[-1] // block * block_bytes), np.uint8)
            writer.add_tensor(name, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(model=models(), data=st.data())
def test_kept_experts_are_the_base_bytes(model: dict, data: st.DataObject) -> None:
    layout = data.draw(st.sampled_from(["uniform", "biased"])) if model["arch"] == "qwen3moe" else "uniform"
    k = data.draw(st.one_of(st.none(), st.integers(1, model["active"])))
    fewest = k or model["active"]
    equal = data.draw(st.integers(fewest, model["experts"]))
    ids = st.permutations(range(model["experts"]))
    counts = [
        equal if layout == "uniform" else data.draw(st.integers(fewest, model["experts"]))
        for _ in range(model["layers"])
    ]
    kept = tuple(tuple(sorted(data.draw(ids)[:count])) for count in counts)
    plan = SurgeryPlan(n_experts=model["experts"], kept=kept, layout=layout, experts_per_token=k)
    with tempfile.TemporaryDirectory() as folder:
        base, result = Path(folder) / "base.gguf", Path(folder) / "result.gguf"
        write_model(base, model)
        surgery.apply_plan(base, plan, result)
        verify(base, plan, result)
        old = {tensor.name: tensor for tensor in gguf_library.GGUFReader(base).tensors}
        reader = gguf_library.GGUFReader(result)
        new = {tensor.name: tensor for tensor in reader.tensors}
        for name, tensor in old.items():
            rows = np.asarray(tensor.data)
            if layout == "uniform" and "_exps" in name + "_exps" * ("gate_inp" in name):
                rows = rows[list(kept[int(name.split(".")[1])])]
            np.testing.assert_array_equal(np.asarray(new[name].data), rows)
        for layer, ids_kept in enumerate(kept if layout == "biased" else ()):
            bias = np.asarray(new[f"blk.{layer}.exp_probs_b"].data)
            assert set(np.flatnonzero(bias == 0)) == set(ids_kept) and (bias[bias != 0] == -1e9).all()
        field = reader.fields["tokenizer.ggml.tokens"]
        assert [bytes(field.parts[i]).decode() for i in field.data] == ["a", "bc", "ä"]
        surgery.apply_plan(base, plan, Path(folder) / "again.gguf")
        assert result.read_bytes() == (Path(folder) / "again.gguf").read_bytes()


saliencies = st.integers(1, 12).flatmap(
    lambda layers: st.integers(2, 10).flatmap(
        lambda experts: st.lists(
            st.lists(st.floats(0, 1e6), min_size=experts, max_size=experts), min_size=layers, max_size=layers
        ).map(np.array)
    )
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a loaded machine is no fault
@given(saliency=saliencies, data=st.data())
def test_a_plan_keeps_the_most_salient(saliency: np.ndarray, data: st.DataObject) -> None:
    n_layers, n_experts = saliency.shape
    group = data.draw(st.sampled_from(["all", "early", "late"]))
    depth = data.draw(st.integers(0, n_experts - 1))
    layers = allocation.layers_of(group, n_layers)  # type: ignore[arg-type]
    protected = [data.draw(st.sets(st.integers(0, n_experts - 1), max_size=n_experts - depth)) for _ in range(n_layers)]
    budget = allocation.uniform_budget(n_layers, n_experts, layers, depth)
    plan = allocation.make_plan(saliency, budget, method="x", layout="biased", protected=protected)
    for layer, (kept, dropped) in enumerate(zip(plan.kept, plan.dropped, strict=True)):
        assert len(dropped) == (depth if layer in layers else 0)
        assert protected[layer] <= set(kept)
        free = [saliency[layer, expert] for expert in kept if expert not in protected[layer]]
        assert not free or not dropped or min(free) >= max(saliency[layer, expert] for expert in dropped)
    assert len(layers) == n_layers if group == "all" else len(layers) == max(n_layers // 4, 1)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a loaded machine is no fault
@given(saliency=saliencies, data=st.data())
def test_bisected_budgets_add_up_within_bounds(saliency: np.ndarray, data: st.DataObject) -> None:
    n_layers, n_experts = saliency.shape
    fewest = data.draw(st.integers(1, n_experts))
    most = data.draw(st.integers(fewest, n_experts))
    total = data.draw(st.integers(fewest * n_layers, most * n_layers))
    budget = allocation.bisected_budget(saliency, range(n_layers), total, fewest=fewest, most=most)
    assert sum(budget) == total and all(fewest <= count <= most for count in budget)
