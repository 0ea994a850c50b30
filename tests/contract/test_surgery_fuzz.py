"""Damaged and hostile files: a clear error or a sound recipe, never a crash, a hang, or a partial output.

The suite tries some thousands of mutants; `pytest -m slow` tries 100,000.
"""

import random
import struct
import time
from collections import Counter
from pathlib import Path

import pytest

from shared.checkpoints import surgery
from shared.checkpoints.base import Range
from shared.kernel.errors import EpiError
from shared.kernel.records import SurgeryPlan
from surgeon.conversion.to_dllama import convert_model
from surgeon.conversion.to_gguf import convert
from tests.support.checkpoint_factory import make_checkpoint

PLAN = SurgeryPlan(n_experts=4, kept=((0, 2, 3),))
BIASED = SurgeryPlan(n_experts=4, kept=((1, 2),), layout="biased")
NUMBERS = (0, 1, 2, 7, 8, 31, 32, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
SECONDS_EACH = 5.0


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzz")
    make_checkpoint(
        root / "hf",
        n_layers=1,
        n_experts=4,
        experts_per_token=2,
        hidden=32,
        expert_hidden=32,
        vocab_size=258,
        head_dim=32,
    )
    convert(root / "hf", root / "seed.gguf", outtype="F16")
    convert_model(root / "hf", root / "seed.m", weights="Q40")
    return root


def header_end(data: bytes, kind: str) -> int:
    if kind == "safetensors":
        return 8 + struct.unpack("<Q", data[:8])[0]
    return 8 + 8 * 22 if kind == "m" else min(len(data), 9000)


def mutate(data: bytes, kind: str, draw: random.Random) -> bytes:
    """Damage mostly the header, where lengths, counts, offsets and names lie."""
    result = bytearray(data)
    end = header_end(data, kind)
    for _ in range(draw.choice((1, 1, 1, 2, 5, 20))):
        at = draw.randrange(min(end, len(result)) if draw.random() < 0.9 else len(result)) if result else 0
        match draw.randrange(7):
            case 0:
                result[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                result[at : at + 1] = bytes([result[at] ^ (1 << draw.randrange(8))]) if result else b""
            case 2:
                size = draw.choice((4, 8))
                value = draw.choice(NUMBERS) & ((1 << 8 * size) - 1)
                result[at : at + size] = value.to_bytes(size, "little")
            case 3:
                del result[at : at + draw.randrange(1, 64)]
            case 4:
                result[at:at] = result[at : at + draw.randrange(1, 64)]
            case 5:
                result[at : at + 4] = draw.choice(
                    (b'"a"', b"[[[[", b"1e99", b"-1,0", b"\xff\xff\xff\xff", b"blk.", b"null")
                )
            case 6:
                del result[draw.randrange(len(result) + 1) :]
    return bytes(result)


def feed(path: Path, source: Path, target: Path, draw: random.Random, outcomes: Counter[str]) -> None:
    """Run surgery on one file and check every promise."""
    started = time.monotonic()
    try:
        outputs = surgery.recipe(source, BIASED if draw.random() < 0.3 else PLAN)
        for output in outputs:
            for piece in output.pieces:
                if isinstance(piece, Range):
                    assert piece.offset >= 0 and piece.offset + piece.length <= piece.source.stat().st_size
        assert sum(output.size_bytes for output in outputs) < 100_000_000
        if draw.random() < 0.05:
            surgery.write_outputs(outputs, target)
            if target.is_dir():
                for entry in target.iterdir():
                    entry.unlink()
                target.rmdir()
            else:
                target.unlink()
        outcomes["accepted"] += 1
    except EpiError as error:
        assert error.fault in ("configuration", "data"), error
        assert str(error)
        outcomes[type(error).__name__] += 1
    assert not target.exists()
    assert time.monotonic() - started < SECONDS_EACH


def fuzz(seeds: Path, kind: str, folder: Path, count: int, seed: int) -> Counter[str]:
    draw = random.Random(f"{kind}/{seed}")
    outcomes: Counter[str] = Counter()
    data = (seeds / "hf" / "model.safetensors" if kind == "safetensors" else seeds / f"seed.{kind}").read_bytes()
    source, path = folder / f"x.{kind}", folder / f"x.{kind}"
    if kind == "safetensors":
        source = folder / "hf"
        source.mkdir()
        path = source / "model.safetensors"
        (source / "config.json").write_bytes((seeds / "hf" / "config.json").read_bytes())
    for _ in range(count):
        path.write_bytes(mutate(data, kind, draw))
        feed(path, source, folder / "target", draw, outcomes)
    names = {entry.name for entry in folder.iterdir()}
    assert names == {source.name}, "something was left behind"
    return outcomes


@pytest.mark.parametrize("kind", ["gguf", "safetensors", "m"])
def test_some_thousand_mutants(seeds: Path, tmp_path: Path, kind: str) -> None:
    outcomes = fuzz(seeds, kind, tmp_path, 1500, seed=1)
    assert outcomes["DataError"] > 100 and outcomes["accepted"] > 10, outcomes


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["gguf", "safetensors", "m"])
def test_a_hundred_thousand_mutants(seeds: Path, tmp_path: Path, kind: str) -> None:
    outcomes = fuzz(seeds, kind, tmp_path, 33_400, seed=2)
    print(kind, dict(outcomes))
    assert outcomes.total() == 33_400


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_mutants_of_the_json_files(seeds: Path, tmp_path: Path, name: str) -> None:
    make_checkpoint(
        tmp_path / "hf",
        n_layers=1,
        n_experts=4,
        experts_per_token=2,
        hidden=32,
        expert_hidden=32,
        vocab_size=258,
        shards=2,
    )
    data = (tmp_path / "hf" / name).read_bytes()
    draw, outcomes = random.Random(name), Counter[str]()
    for _ in range(400):
        (tmp_path / "hf" / name).write_bytes(mutate(data + b" " * 8, "gguf", draw))
        feed(tmp_path, tmp_path / "hf", tmp_path / "target", draw, outcomes)
    assert outcomes["DataError"] > 50
