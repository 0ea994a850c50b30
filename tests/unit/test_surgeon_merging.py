"""Merging: one-hot matrices drop byte for byte; files and the model in memory agree; the search climbs."""

from pathlib import Path

import numpy as np
import pytest

from shared import llama, surgery
from shared.checkpoints import gguf
from shared.errors import ConfigurationError, DataError
from shared.records import SurgeryPlan
from surgeon.convert import convert
from surgeon.masking import ExpertMask
from surgeon.merging import MergeMatrices, merge
from surgeon.quantize import quantize
from surgeon.search.eep import Fitness
from surgeon.search.eep_merge import MergeOptions, WeightsInMemory, search_merge
from tests.checkpoint_factory import TEXT, make_checkpoint

PLAN = SurgeryPlan(n_experts=8, kept=((0, 2, 3, 5), (1, 2, 4, 7)))


@pytest.fixture(scope="module", params=["F32", "F16"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("merging")
    make_checkpoint(root / "hf", n_layers=2, n_experts=8, experts_per_token=2)
    convert(root / "hf", root / "base.gguf", outtype=request.param)
    return root / "base.gguf"


def mixed() -> MergeMatrices:
    start = MergeMatrices.of_plan(PLAN)
    random = np.random.default_rng(1)
    return MergeMatrices(*(part + random.normal(0, 0.2, part.shape) for part in (start.experts, start.routers)))


def tensors_of(path: Path) -> dict[str, tuple]:
    data = path.read_bytes()
    return {t.name: (t.ne, t.kind, data[t.offset : t.offset + t.n_bytes]) for t in gguf.parse(path).tensors}


def test_one_hot_matrices_only_drop(base: Path, tmp_path: Path) -> None:
    MergeMatrices.of_plan(PLAN).save(tmp_path / "m")
    merge(base, tmp_path / "m", tmp_path / "merged.gguf")
    surgery.apply_plan(base, PLAN, tmp_path / "cut.gguf")
    assert tensors_of(tmp_path / "merged.gguf") == tensors_of(tmp_path / "cut.gguf")


def logits(model: llama.Model, on_tensor: ExpertMask | None) -> np.ndarray:
    with llama.Context(model, context_tokens=128, batch_tokens=128, cache_f32=True, on_tensor=on_tensor) as context:
        tokens = model.tokenize(TEXT)[:60]
        context.decode(tokens, range(len(tokens)))
        return np.stack([context.logits(row).copy() for row in range(len(tokens))])


def test_memory_and_file_are_one_model(base: Path, tmp_path: Path) -> None:
    matrices = mixed()
    matrices.save(tmp_path / "m")
    merge(base, tmp_path / "m", tmp_path / "merged.gguf")
    mask = ExpertMask(2, 8)
    with llama.Model(base, use_mmap=False) as model:
        before = logits(model, None)
        weights = WeightsInMemory(model, 2)
        weights.merge(matrices)
        mask.keep([range(4)] * 2)
        inside = logits(model, mask)
        weights.restore()
        assert (logits(model, None) == before).all()
    with llama.Model(tmp_path / "merged.gguf") as model:
        assert np.abs(logits(model, None) - inside).max() < 1e-3
    assert np.abs(inside - before).max() > 0.5


def test_merged_files_quantise(base: Path, tmp_path: Path) -> None:
    mixed().save(tmp_path / "m")
    merge(base, tmp_path / "m", tmp_path / "merged.gguf")
    quantize(tmp_path / "merged.gguf", tmp_path / "q.gguf", "Q8_0")
    assert surgery.describe(tmp_path / "q.gguf").n_experts == 4
    with pytest.raises(ConfigurationError, match="quantised"):
        MergeMatrices(mixed().experts[:, :2], mixed().routers[:, :2]).save(tmp_path / "m")
        quantize(base, tmp_path / "base-q.gguf", "Q8_0")
        merge(tmp_path / "base-q.gguf", tmp_path / "m", tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists() and not list(tmp_path.glob(".*partial"))


def test_unsound_matrices_are_refused(tmp_path: Path) -> None:
    for experts in (np.ones((2, 4)), np.ones((1, 5, 4)), np.full((1, 2, 4), np.nan)):
        with pytest.raises(DataError):
            MergeMatrices(experts, experts)
    (tmp_path / "m").write_bytes(b"nonsense")
    with pytest.raises(DataError):
        MergeMatrices.load(tmp_path / "m")


def test_the_search_climbs_and_is_reproducible() -> None:
    start = MergeMatrices.of_plan(PLAN)
    target = mixed()

    def near(matrices: MergeMatrices) -> Fitness:
        distance = np.abs(matrices.experts - target.experts).mean() + np.abs(matrices.routers - target.routers).mean()
        return Fitness(accuracy=1 / (1 + float(distance)), margin=0.0)

    options = MergeOptions(iterations=40, parent_margin=0.001)
    first, second = (search_merge(start, near, options) for _ in range(2))
    assert first.generations == second.generations
    assert first.fitness.accuracy > near(start).accuracy + 0.01
