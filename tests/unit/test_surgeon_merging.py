"""Merging: one-hot matrices drop byte for byte; every format and the model in memory agree; the search climbs."""

from pathlib import Path

import gguf as gguf_library
import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file

from shared.checkpoints import dllama, gguf, surgery
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.records import MergeMatrices, SurgeryPlan
from shared.llama import model as llama
from surgeon.conversion.quantize import quantize
from surgeon.conversion.to_dllama import convert_model
from surgeon.conversion.to_gguf import convert
from surgeon.planning.merging import MergeArrays
from surgeon.search.evolution import Fitness
from surgeon.search.masking import ExpertMask
from surgeon.search.merge_evolution import MergeOptions, WeightsInMemory, search_merge
from surgeon.verification.verify import verify
from tests.support.checkpoint_factory import TEXT, make_checkpoint

PLAN = SurgeryPlan(n_experts=8, kept=((0, 2, 3, 5), (1, 2, 4, 7)))
ONE_HOT = PLAN.model_copy(update={"merge": MergeArrays.of_plan(PLAN).record()})
HALF_TOLERANCE = {"F32": 1e-6, "F16": 1e-3, "BF16": 8e-3, "Q8_0": 0.01, "Q4_0": 0.12, "Q4_K": 0.12, "Q6_K": 0.04}
"""Largest error of quantising again, over the largest value."""


def mixed() -> MergeArrays:
    start = MergeArrays.of_plan(PLAN)
    random = np.random.default_rng(1)
    return MergeArrays(*(part + random.normal(0, 0.2, part.shape) for part in (start.experts, start.routers)))


MIXED = PLAN.model_copy(update={"merge": mixed().record()})


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("merging")
    size = {"n_layers": 2, "n_experts": 8, "experts_per_token": 2, "hidden": 256, "expert_hidden": 256}
    for name, options in (("hf", {}), ("stacked", {"stacked": True}), ("mixtral", {"naming": "mixtral", "shards": 2})):
        make_checkpoint(root / name, **size, **options)  # type: ignore[arg-type]
    for outtype in ("F32", "F16", "BF16"):
        convert(root / "hf", root / f"{outtype}.gguf", outtype=outtype)
    for quantization in ("Q4_0", "Q8_0", "Q4_K_M", "Q2_K"):
        quantize(root / "F32.gguf", root / f"{quantization}.gguf", quantization)
    for weights in ("F32", "Q40"):
        convert_model(root / "hf", root / f"{weights}.m", weights=weights)
    return root


def tensors_of(path: Path) -> dict[str, tuple]:
    data = path.read_bytes()
    return {t.name: (t.ne, t.kind, data[t.offset : t.offset + t.n_bytes]) for t in gguf.parse(path).tensors}


SOURCES = ("F32.gguf", "F16.gguf", "BF16.gguf", "Q4_0.gguf", "Q8_0.gguf", "Q4_K_M.gguf", "F32.m", "Q40.m", "hf",
           "stacked", "mixtral")  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_one_hot_matrices_only_drop(lab: Path, tmp_path: Path, source: str) -> None:
    surgery.apply_plan(lab / source, ONE_HOT, tmp_path / "merged")
    surgery.apply_plan(lab / source, PLAN, tmp_path / "cut")
    verify(lab / source, ONE_HOT, tmp_path / "merged")
    if source.endswith(".gguf"):
        assert tensors_of(tmp_path / "merged") == tensors_of(tmp_path / "cut")
    elif source.endswith(".m"):
        assert (tmp_path / "merged").read_bytes() == (tmp_path / "cut").read_bytes()
    else:
        for file in (lab / source).glob("*.safetensors"):
            merged, cut = (load_file(tmp_path / name / file.name) for name in ("merged", "cut"))
            assert set(merged) == set(cut) and all((merged[name] == cut[name]).all() for name in cut)


@pytest.mark.parametrize("source", SOURCES)
def test_merged_files_are_proved_and_every_damage_is_seen(lab: Path, tmp_path: Path, source: str) -> None:
    surgery.apply_plan(lab / source, MIXED, tmp_path / "merged")
    assert not verify(lab / source, MIXED, tmp_path / "merged").identical
    assert surgery.describe(tmp_path / "merged").n_experts == 4
    target = tmp_path / "merged"
    if target.is_dir():
        target = sorted(target.glob("*.safetensors"))[0]
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    with pytest.raises(DataError):
        verify(lab / source, MIXED, tmp_path / "merged")


@pytest.mark.parametrize("source", [name for name in SOURCES if name.endswith(".gguf")])
def test_merged_values_are_the_weighted_sums(lab: Path, tmp_path: Path, source: str) -> None:
    surgery.apply_plan(lab / source, MIXED, tmp_path / "merged.gguf")
    old, new = (
        {t.name: gguf_library.dequantize(t.data, t.tensor_type).reshape(t.data.shape[0], -1) for t in reader.tensors
         if "exps" in t.name or "gate_inp" in t.name}
        for reader in map(gguf_library.GGUFReader, (lab / source, tmp_path / "merged.gguf"))
    )  # fmt: skip
    kinds = {t.name: t.tensor_type.name for t in gguf_library.GGUFReader(lab / source).tensors}
    for name, values in old.items():
        matrix = (mixed().experts if "exps" in name else mixed().routers)[int(name.split(".")[1])]
        expected = matrix @ values.astype(np.float64)
        worst = np.abs(new[name] - expected).max() / np.abs(expected).max()
        assert worst < HALF_TOLERANCE[kinds[name]], (name, kinds[name], worst)


def test_merging_then_converting_is_converting_then_merging(lab: Path, tmp_path: Path) -> None:
    for name in ("hf", "stacked"):
        surgery.apply_plan(lab / name, MIXED, tmp_path / name)
        convert(tmp_path / name, tmp_path / f"{name}.gguf", outtype="F32")
        convert_model(tmp_path / name, tmp_path / f"{name}.m", weights="F32")
    surgery.apply_plan(lab / "F32.gguf", MIXED, tmp_path / "late.gguf")
    surgery.apply_plan(lab / "F32.m", MIXED, tmp_path / "late.m")
    for name in ("hf", "stacked"):
        assert tensors_of(tmp_path / f"{name}.gguf") == tensors_of(tmp_path / "late.gguf")
        assert (tmp_path / f"{name}.m").read_bytes() == (tmp_path / "late.m").read_bytes()
    assert dllama.parse(tmp_path / "late.m").header["n_experts"] == 4


def logits(model: llama.Model, on_tensor: ExpertMask | None) -> np.ndarray:
    with llama.Context(model, context_tokens=128, batch_tokens=128, cache_f32=True, on_tensor=on_tensor) as context:
        tokens = model.tokenize(TEXT)[:60]
        context.decode(tokens, range(len(tokens)))
        return np.stack([context.logits(row).copy() for row in range(len(tokens))])


@pytest.mark.parametrize(("source", "tolerance"), [("F32.gguf", 1e-3), ("F16.gguf", 0.05)])
def test_memory_and_file_are_one_model(lab: Path, tmp_path: Path, source: str, tolerance: float) -> None:
    """In memory the sums are BLAS's: where they differ in the last bit, F16 rounds some weights another way."""
    surgery.apply_plan(lab / source, MIXED, tmp_path / "merged.gguf")
    mask = ExpertMask(range(2), 8)
    with llama.Model(lab / source, use_mmap=False) as model:
        before = logits(model, None)
        weights = WeightsInMemory(model, range(2))
        weights.merge(mixed())
        mask.keep([range(4)] * 2)
        inside = logits(model, mask)
    with llama.Model(tmp_path / "merged.gguf") as model:
        assert np.abs(logits(model, None) - inside).max() < tolerance
    assert np.abs(inside - before).max() > 0.5


def test_memory_for_sums_does_not_change_the_bytes(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surgery.apply_plan(lab / "Q8_0.gguf", MIXED, tmp_path / "a")
    monkeypatch.setattr("shared.checkpoints.merging._SUM_BYTES", 1)
    surgery.apply_plan(lab / "Q8_0.gguf", MIXED, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_cannot_be_merged_is_refused_before_anything_is_written(lab: Path, tmp_path: Path) -> None:
    data = (lab / "Q2_K.gguf").read_bytes()
    writer = gguf_library.GGUFWriter(tmp_path / "iq.gguf", "qwen3moe")
    writer.add_expert_count(8)
    writer.add_expert_used_count(2)
    iq = gguf_library.GGMLQuantizationType.IQ2_XXS
    writer.add_tensor("blk.0.ffn_gate_inp.weight", np.ones((8, 256), np.float32))
    for part in ("gate", "up", "down"):
        writer.add_tensor(f"blk.0.ffn_{part}_exps.weight", np.zeros((8, 1, 66), np.uint8), raw_dtype=iq)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    one_layer = SurgeryPlan(
        n_experts=8, kept=(PLAN.kept[0],),
        merge=MergeMatrices(experts=mixed().record().experts[:1], routers=mixed().record().routers[:1]),
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="importance matrix"):
        surgery.apply_plan(tmp_path / "iq.gguf", one_layer, tmp_path / "x")
    other = MIXED.model_copy(update={"router_sha256": "0" * 64})
    with pytest.raises(ConfigurationError, match="its routers are others"):
        surgery.apply_plan(lab / "Q2_K.gguf", other, tmp_path / "x")
    assert MIXED.merge is not None
    large = (MIXED.merge.experts[0], tuple(tuple(1e6 * w for w in row) for row in MIXED.merge.experts[1]))
    too_large = MIXED.model_copy(update={"merge": MIXED.merge.model_copy(update={"experts": large})})
    with pytest.raises(DataError, match="does not fit F16"):
        surgery.apply_plan(lab / "F16.gguf", too_large, tmp_path / "x")
    assert {entry.name for entry in tmp_path.iterdir()} == {"iq.gguf"}
    assert (lab / "Q2_K.gguf").read_bytes() == data


def test_unsound_matrices_are_refused() -> None:
    fine = MIXED.model_dump()
    SurgeryPlan.model_validate(fine)
    for change in (
        {"layout": "biased"},
        {"merge": {"experts": fine["merge"]["experts"][:1], "routers": fine["merge"]["routers"]}},
        {"merge": {"experts": fine["merge"]["experts"], "routers": [row[:3] for row in fine["merge"]["routers"]]}},
        {"merge": {"experts": [[[float("nan")] * 8] * 4] * 2, "routers": fine["merge"]["routers"]}},
    ):
        with pytest.raises(ValidationError):
            SurgeryPlan.model_validate(fine | change)
    assert "merge" not in PLAN.model_dump() and "router_sha256" not in PLAN.model_dump(), "older plans keep their hash"


def test_the_search_climbs_and_is_reproducible() -> None:
    start = MergeArrays.of_plan(PLAN)
    target = mixed()

    def near(matrices: MergeArrays) -> Fitness:
        distance = np.abs(matrices.experts - target.experts).mean() + np.abs(matrices.routers - target.routers).mean()
        return Fitness(accuracy=1 / (1 + float(distance)), margin=0.0)

    options = MergeOptions(iterations=40, parent_margin=0.001)
    first, second = (search_merge(start, near, options) for _ in range(2))
    assert first.generations == second.generations
    assert first.fitness.accuracy > near(start).accuracy + 0.01
