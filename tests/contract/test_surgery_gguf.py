"""Surgery on GGUF: exactness against masking, byte identity with quantisation, verification, damage, crashes."""

import errno
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from shared.checkpoints import gguf, gguf_experts, surgery
from shared.files.durability import hash_file
from shared.kernel.errors import ConfigurationError, DataError, InfrastructureError
from shared.kernel.records import SurgeryPlan
from shared.llama import model as llama
from surgeon.conversion.to_gguf import convert
from surgeon.verification.verify import verify
from tests.support.checkpoint_factory import TEXT, make_checkpoint
from tests.support.masks import mask_of
from tests.support.selection_counts import count_selected

N = 12
EQUAL = tuple((0, 2, 3, 5, 7, 8, 11) if layer % 2 else (1, 2, 4, 5, 6, 9, 10) for layer in range(4))
LATE = (tuple(range(N)),) * 3 + ((0, 3, 4, 9),)


def plan(kept: tuple[tuple[int, ...], ...], layout: str = "uniform", k: int | None = None) -> SurgeryPlan:
    return SurgeryPlan(n_experts=N, kept=kept, layout=layout, experts_per_token=k, method="test")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("surgery")
    # 256 so that K-quants apply
    make_checkpoint(
        root / "hf", n_layers=4, n_experts=N, experts_per_token=3, hidden=256, expert_hidden=256, head_dim=64
    )
    convert(root / "hf", root / "f32.gguf", outtype="F32")
    return root


def log_probabilities(path: Path, masked: SurgeryPlan | None = None, k: int | None = None) -> np.ndarray:
    mask = None if masked is None else mask_of(masked)
    with (
        llama.Model(path, experts_per_token=k) as model,
        llama.Context(model, context_tokens=256, batch_tokens=256, cache_f32=True, on_tensor=mask) as context,
    ):
        tokens = model.tokenize(TEXT)[:120]
        context.decode(tokens, range(len(tokens)))
        logits = np.stack([context.logits(row).astype(np.float64) for row in range(len(tokens))])
    if mask is not None:
        assert mask.layers_seen > 0
    return (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )


def test_physical_biased_and_masked_are_one_model(lab: Path, tmp_path: Path) -> None:
    base = lab / "f32.gguf"
    surgery.apply_plan(base, plan(EQUAL), tmp_path / "uniform.gguf")
    surgery.apply_plan(base, plan(EQUAL, "biased"), tmp_path / "biased.gguf")
    before = log_probabilities(base)
    masked = log_probabilities(base, plan(EQUAL))
    physical = log_probabilities(tmp_path / "uniform.gguf")
    biased = log_probabilities(tmp_path / "biased.gguf")
    assert np.abs(masked - before).max() > 1, "the plan should matter"
    assert np.abs(physical - masked).max() < 1e-4
    assert np.abs(biased - masked).max() < 1e-4


def test_a_late_plan_in_the_biased_layout_is_masking(lab: Path, tmp_path: Path) -> None:
    surgery.apply_plan(lab / "f32.gguf", plan(LATE, "biased"), tmp_path / "late.gguf")
    masked = log_probabilities(lab / "f32.gguf", plan(LATE, "biased"))
    assert np.abs(log_probabilities(tmp_path / "late.gguf") - masked).max() < 1e-4
    counts = count_selected(tmp_path / "late.gguf", [TEXT])
    assert counts[3, [e for e in range(N) if e not in LATE[3]]].sum() == 0
    assert counts.sum(axis=1).min() == counts.sum(axis=1).max() > 300


def test_the_control_of_the_biased_layout_changes_nothing_in_the_model(lab: Path, tmp_path: Path) -> None:
    everything = (tuple(range(N)),) * 4
    surgery.apply_plan(lab / "f32.gguf", plan(everything, "biased"), tmp_path / "control.gguf")
    assert np.abs(log_probabilities(tmp_path / "control.gguf") - log_probabilities(lab / "f32.gguf")).max() == 0.0


def test_no_drop_uniform_is_a_copy(lab: Path, tmp_path: Path) -> None:
    surgery.apply_plan(lab / "f32.gguf", plan((tuple(range(N)),) * 4), tmp_path / "copy.gguf")
    assert hash_file(tmp_path / "copy.gguf") == hash_file(lab / "f32.gguf")
    assert verify(lab / "f32.gguf", plan((tuple(range(N)),) * 4), tmp_path / "copy.gguf").identical


@pytest.mark.parametrize("layout", ["uniform", "biased"])
def test_fewer_active_experts_is_the_engine_override(lab: Path, tmp_path: Path, layout: str) -> None:
    surgery.apply_plan(lab / "f32.gguf", plan((tuple(range(N)),) * 4, layout, k=2), tmp_path / "k2.gguf")
    expected = log_probabilities(lab / "f32.gguf", k=2)
    assert np.abs(log_probabilities(tmp_path / "k2.gguf") - expected).max() == 0.0


def _tensors(path: Path) -> dict[str, tuple[tuple[int, ...], int, bytes]]:
    data = path.read_bytes()
    return {t.name: (t.ne, t.kind, data[t.offset : t.offset + t.n_bytes]) for t in gguf.parse(path).tensors}


@pytest.mark.parametrize(
    ("kept", "layout", "k"), [(EQUAL, "uniform", None), (EQUAL, "uniform", 2), (LATE, "biased", None)]
)
def test_verify_accepts_the_result_and_sees_every_damage(
    lab: Path, tmp_path: Path, kept: tuple, layout: str, k: int | None
) -> None:
    chosen = plan(kept, layout, k)
    target = tmp_path / "v.gguf"
    surgery.apply_plan(lab / "f32.gguf", chosen, target)
    report = verify(lab / "f32.gguf", chosen, target)
    assert report.n_tensors == len(gguf.parse(target).tensors) and not report.identical
    other = plan(tuple(tuple(sorted({*ids[1:], *range(N)} - {ids[0]}))[: len(ids)] for ids in kept), layout, k)
    with pytest.raises((DataError, ConfigurationError)):
        verify(lab / "f32.gguf", other, target)
    good = target.read_bytes()
    first = gguf.parse(target)
    places = [first.data_offset + 5, len(good) - 200, len(good) // 2, good.index(b"expert_used_count") + 21]
    for place in places:
        target.write_bytes(good[:place] + bytes([good[place] ^ 0x41]) + good[place + 1 :])
        with pytest.raises((DataError, ConfigurationError)):
            verify(lab / "f32.gguf", chosen, target)
    target.write_bytes(good + b"hidden")
    with pytest.raises(DataError, match="unaccounted"):
        verify(lab / "f32.gguf", chosen, target)


def test_the_same_plan_gives_the_same_bytes_elsewhere(lab: Path, tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    shutil.copy(lab / "f32.gguf", tmp_path / "node" / "other-name")
    surgery.apply_plan(lab / "f32.gguf", plan(LATE, "biased"), tmp_path / "a")
    surgery.apply_plan(tmp_path / "node" / "other-name", plan(LATE, "biased"), tmp_path / "node" / "b")
    assert hash_file(tmp_path / "a") == hash_file(tmp_path / "node" / "b")


def test_without_kernel_copy_the_bytes_are_the_same(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surgery.apply_plan(lab / "f32.gguf", plan(EQUAL), tmp_path / "a")

    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    surgery.apply_plan(lab / "f32.gguf", plan(EQUAL), tmp_path / "b")
    assert hash_file(tmp_path / "a") == hash_file(tmp_path / "b")


def test_a_full_disk_leaves_nothing_behind(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def fail(*_: object) -> int:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*_)  # type: ignore[arg-type]

    real = os.copy_file_range
    monkeypatch.setattr(os, "copy_file_range", fail)
    with pytest.raises(InfrastructureError, match="the disk is full"):
        surgery.apply_plan(lab / "f32.gguf", plan(EQUAL), tmp_path / "t.gguf")
    assert list(tmp_path.iterdir()) == []


def test_refusals(lab: Path, tmp_path: Path) -> None:
    base = lab / "f32.gguf"
    cases = [
        (SurgeryPlan(n_experts=N, kept=((0, 1, 2),)), "1 layers of 12"),
        (SurgeryPlan(n_experts=16, kept=((0, 1, 2),) * 4), "4 layers of 16"),
        (plan(((0, 1),) * 4), "3 are active"),
    ]
    for refused, message in cases:
        with pytest.raises(ConfigurationError, match=message):
            surgery.apply_plan(base, refused, tmp_path / "t")
    surgery.apply_plan(base, plan(LATE, "biased"), tmp_path / "biased.gguf")
    with pytest.raises(ConfigurationError, match="hy_v3"):
        surgery.apply_plan(tmp_path / "biased.gguf", plan(LATE, "biased"), tmp_path / "t")
    (tmp_path / "text").write_text("hello, this is not a model")
    with pytest.raises(ConfigurationError, match="not a checkpoint"):
        surgery.apply_plan(tmp_path / "text", plan(EQUAL), tmp_path / "t")
    with pytest.raises(ConfigurationError, match="no such checkpoint"):
        surgery.apply_plan(tmp_path / "nothing", plan(EQUAL), tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_an_array_of_active_experts_is_refused(lab: Path, tmp_path: Path) -> None:
    """llama.cpp loads such a file and computes wrongly."""
    data = (lab / "f32.gguf").read_bytes()
    key = b"qwen3moe.expert_used_count"
    at = data.index(key) + len(key)
    array = struct.pack("<IIQ4I", 9, 4, 4, 3, 3, 3, 3)
    bad = tmp_path / "bad.gguf"
    # 24 bytes more in the header: moved within its padding by cutting the same from nowhere would break it, so re-pad
    old = gguf.parse(lab / "f32.gguf")
    header = data[:at] + array + data[at + 8 : old.data_offset].rstrip(b"\0")
    header += bytes(-len(header) % old.alignment)
    bad.write_bytes(header + bytes(old.alignment) * 2 + data[old.data_offset :])
    with pytest.raises(DataError, match="not one integer"):
        gguf_experts.describe(gguf.parse(bad))


@pytest.mark.parametrize("naming", ["qwen2", "mixtral"])
def test_other_architectures_are_cut_exactly_too(tmp_path: Path, naming: str) -> None:
    """Qwen2-MoE's shared expert and its gate stay as they are; safetensors surgery and GGUF surgery agree."""
    make_checkpoint(tmp_path / "hf", n_layers=2, n_experts=N, experts_per_token=2, naming=naming)
    convert(tmp_path / "hf", tmp_path / "base.gguf", outtype="F32")
    chosen = plan(EQUAL[:2])
    surgery.apply_plan(tmp_path / "base.gguf", chosen, tmp_path / "cut.gguf")
    verify(tmp_path / "base.gguf", chosen, tmp_path / "cut.gguf")
    masked = log_probabilities(tmp_path / "base.gguf", chosen)
    assert np.abs(log_probabilities(tmp_path / "cut.gguf") - masked).max() < 1e-4
    assert np.abs(log_probabilities(tmp_path / "base.gguf") - masked).max() > 0.5
    surgery.apply_plan(tmp_path / "hf", chosen, tmp_path / "cut-hf")
    convert(tmp_path / "cut-hf", tmp_path / "cut-then-converted.gguf", outtype="F32")
    assert _tensors(tmp_path / "cut-then-converted.gguf") == _tensors(tmp_path / "cut.gguf")
    if naming == "qwen2":
        with pytest.raises(ConfigurationError, match="gated shared experts exist in no graph"):
            surgery.apply_plan(tmp_path / "base.gguf", plan(EQUAL[:2], "biased"), tmp_path / "x.gguf")
    else:
        surgery.apply_plan(tmp_path / "base.gguf", plan(EQUAL[:2], "biased"), tmp_path / "biased.gguf")
        verify(tmp_path / "base.gguf", plan(EQUAL[:2], "biased"), tmp_path / "biased.gguf")
        assert np.abs(log_probabilities(tmp_path / "biased.gguf") - masked).max() < 1e-4
