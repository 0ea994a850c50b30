"""The order of surgery, conversion and quantisation does not matter, byte for byte, on real and on random weights.

llama-quantize knows one exception: a model of exactly 8 experts gets other types for its attention.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.checkpoints import gguf, surgery
from shared.files.durability import hash_file
from shared.kernel.records import SurgeryPlan
from surgeon.conversion.quantize import quantize
from surgeon.conversion.to_dllama import convert_model
from surgeon.conversion.to_gguf import convert
from surgeon.verification.verify import verify
from tests.support.checkpoint_factory import make_checkpoint

DEMO = Path(__file__).parents[2] / "demo" / "model"


@dataclass(frozen=True)
class Lab:
    """A checkpoint directory, files made of it in `folder`, and how many experts its layers have."""

    source: Path
    folder: Path
    n_experts: int

    def plan(self, keep: int) -> SurgeryPlan:
        """Keep other experts in each of four layers."""
        kept = [sorted((layer + 5 * place) % self.n_experts for place in range(keep)) for layer in range(4)]
        plan = SurgeryPlan(n_experts=self.n_experts, kept=tuple(map(tuple, kept)), method="test")
        return plan.model_copy(update={"router_sha256": surgery.router_sha256(self.source)})


@pytest.fixture(scope="module", params=["demo", "generated", "shards", "stacked", "qwen2", "mixtral"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "demo":
        source, n_experts = DEMO, 16
    else:
        # 256 so that K-quants apply
        n_experts, size = 12, {"hidden": 256, "expert_hidden": 256, "head_dim": 64}
        options = {
            "generated": {}, "shards": {"shards": 3}, "stacked": {"stacked": True, "shards": 2, "dtype": "F16"},
            "qwen2": {"naming": "qwen2"}, "mixtral": {"naming": "mixtral", "shards": 2},
        }  # fmt: skip
        source = make_checkpoint(folder / "hf", n_layers=4, n_experts=12, **size, **options[request.param])  # type: ignore[arg-type]
    convert(source, folder / "f32.gguf", outtype="F32")
    return Lab(source, folder, n_experts)


def tensors_of(path: Path) -> dict[str, tuple[tuple[int, ...], int, bytes]]:
    data = path.read_bytes()
    return {t.name: (t.ne, t.kind, data[t.offset : t.offset + t.n_bytes]) for t in gguf.parse(path).tensors}


def test_safetensors_surgery_then_conversion_is_conversion_then_gguf_surgery(lab: Lab, tmp_path: Path) -> None:
    plan = lab.plan(7)
    surgery.apply_plan(lab.source, plan, tmp_path / "cut")
    verify(lab.source, plan, tmp_path / "cut")
    for outtype in ("F32", "F16", "BF16"):
        convert(lab.source, tmp_path / "base.gguf", outtype=outtype)
        surgery.apply_plan(tmp_path / "base.gguf", plan, tmp_path / "late.gguf")
        convert(tmp_path / "cut", tmp_path / "early.gguf", outtype=outtype)
        assert tensors_of(tmp_path / "early.gguf") == tensors_of(tmp_path / "late.gguf"), outtype


@pytest.mark.parametrize("lab", ["demo", "generated", "shards", "stacked"], indirect=True)
def test_safetensors_surgery_then_conversion_is_conversion_then_m_surgery(lab: Lab, tmp_path: Path) -> None:
    plan = lab.plan(7)
    surgery.apply_plan(lab.source, plan, tmp_path / "cut")
    for weights in ("Q40", "Q80"):
        convert_model(lab.source, tmp_path / "base.m", weights=weights)
        surgery.apply_plan(tmp_path / "base.m", plan, tmp_path / "late.m")
        verify(tmp_path / "base.m", plan, tmp_path / "late.m")
        convert_model(tmp_path / "cut", tmp_path / "early.m", weights=weights)
        assert hash_file(tmp_path / "early.m") == hash_file(tmp_path / "late.m"), weights


def quantised_both_ways(lab: Lab, folder: Path, quantization: str, keep: int) -> tuple[dict, dict]:
    """Return the tensors of quantise-then-slice and of slice-then-quantise."""
    plan = lab.plan(keep)
    quantize(lab.folder / "f32.gguf", folder / "q.gguf", quantization)
    surgery.apply_plan(folder / "q.gguf", plan, folder / "late.gguf")
    verify(folder / "q.gguf", plan, folder / "late.gguf")
    surgery.apply_plan(lab.folder / "f32.gguf", plan, folder / "cut.gguf")
    quantize(folder / "cut.gguf", folder / "early.gguf", quantization)
    return tensors_of(folder / "late.gguf"), tensors_of(folder / "early.gguf")


@pytest.mark.parametrize("lab", ["demo", "generated", "mixtral"], indirect=True)
@pytest.mark.parametrize("quantization", ["Q4_K_M", "Q4_0", "Q8_0", "Q3_K_M"])
def test_quantise_then_slice_is_slice_then_quantise(lab: Lab, tmp_path: Path, quantization: str) -> None:
    late, early = quantised_both_ways(lab, tmp_path, quantization, 10 if lab.n_experts == 16 else 7)
    assert late == early


@pytest.mark.parametrize("lab", ["demo", "generated"], indirect=True)
def test_exactly_eight_experts_is_the_known_exception(lab: Lab, tmp_path: Path) -> None:
    """llama-quantize gives attention other types when a model has exactly 8 experts: slice-last keeps the base's."""
    late, early = quantised_both_ways(lab, tmp_path, "Q4_K_M", 8)
    assert {name.split(".")[2] for name in late if late[name] != early[name]} <= {"attn_k", "attn_v", "attn_output"}
    assert all(late[name] == early[name] for name in late if "exps" in name)
