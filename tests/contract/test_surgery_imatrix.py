"""With an importance matrix too: quantise-then-slice is slice-then-quantise with the matrix sliced likewise."""

from pathlib import Path

import numpy as np
import pytest

from shared.checkpoints import gguf, surgery
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import SurgeryPlan
from surgeon.conversion.imatrix import importance_matrix
from surgeon.conversion.quantize import quantize
from surgeon.conversion.to_gguf import convert
from surgeon.observation.corpus import load_corpus
from surgeon.observation.observe import ObserveOptions, observe
from surgeon.observation.statistics import Statistics
from tests.support.checkpoint_factory import TEXT, make_checkpoint

PLAN = SurgeryPlan(n_experts=12, kept=((0, 2, 3, 5, 7, 8, 11), (1, 2, 4, 5, 6, 9, 10)))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imatrix")
    make_checkpoint(root / "hf", n_layers=2, n_experts=12, experts_per_token=3, hidden=256, expert_hidden=256)
    convert(root / "hf", root / "f32.gguf", outtype="F32")
    (root / "text.txt").write_text(TEXT[:500])
    return root


@pytest.fixture(scope="module")
def seen(lab: Path) -> Statistics:
    return observe(lab / "f32.gguf", load_corpus([lab / "text.txt"]), ObserveOptions(window_tokens=64, columns=True))


def tensors_of(path: Path) -> dict[str, tuple]:
    data = path.read_bytes()
    return {t.name: (t.ne, t.kind, data[t.offset : t.offset + t.n_bytes]) for t in gguf.parse(path).tensors}


@pytest.mark.parametrize("quantization", ["Q4_K_M", "Q3_K_S", "IQ4_XS"])
def test_order_does_not_matter(lab: Path, seen: Statistics, tmp_path: Path, quantization: str) -> None:
    quantize(lab / "f32.gguf", tmp_path / "q.gguf", quantization, imatrix=importance_matrix(seen))
    surgery.apply_plan(tmp_path / "q.gguf", PLAN, tmp_path / "q-cut.gguf")
    surgery.apply_plan(lab / "f32.gguf", PLAN, tmp_path / "cut.gguf")
    quantize(tmp_path / "cut.gguf", tmp_path / "cut-q.gguf", quantization, imatrix=importance_matrix(seen, PLAN))
    assert tensors_of(tmp_path / "q-cut.gguf") == tensors_of(tmp_path / "cut-q.gguf")
    quantize(lab / "f32.gguf", tmp_path / "plain.gguf", quantization)
    name = "blk.1.ffn_up_exps.weight"
    assert tensors_of(tmp_path / "plain.gguf")[name] != tensors_of(tmp_path / "q.gguf")[name], "it should matter"


def test_it_lowers_the_weighted_error(lab: Path, seen: Statistics, tmp_path: Path) -> None:
    import gguf as library

    matrix = importance_matrix(seen)
    quantize(lab / "f32.gguf", tmp_path / "with.gguf", "Q3_K_S", imatrix=matrix)
    quantize(lab / "f32.gguf", tmp_path / "without.gguf", "Q3_K_S")
    name = "blk.0.ffn_up_exps.weight"
    exact = next(t for t in library.GGUFReader(lab / "f32.gguf").tensors if t.name == name).data
    weight = matrix[name].reshape(12, 1, -1)
    errors = []
    for file in ("with.gguf", "without.gguf"):
        tensor = next(t for t in library.GGUFReader(tmp_path / file).tensors if t.name == name)
        values = library.dequantize(tensor.data, tensor.tensor_type)
        errors.append(float((weight * (values - exact) ** 2).sum()))
    assert errors[0] < errors[1]


def test_unseen_experts_prefer_no_column(seen: Statistics) -> None:
    name = "blk.0.ffn_gate_exps.weight"
    matrix = importance_matrix(seen)[name].reshape(12, 256)
    for expert, count in enumerate(seen.total("selections")[0]):
        assert (matrix[expert] == 1).all() if count == 0 else np.ptp(matrix[expert]) > 0


def test_refusals(lab: Path, seen: Statistics) -> None:
    bare = observe(lab / "f32.gguf", load_corpus([lab / "text.txt"]), ObserveOptions(window_tokens=64))
    with pytest.raises(ConfigurationError, match="was not collected"):
        importance_matrix(bare)
    with pytest.raises(ConfigurationError, match="different models"):
        importance_matrix(seen, SurgeryPlan(n_experts=4, kept=((0, 1),)))
