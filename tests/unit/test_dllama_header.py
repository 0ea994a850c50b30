"""One reader of .m headers: surgery and the engine's start agree on what is refused, and on dense models."""

import struct
from pathlib import Path

import pytest

from node_agent.engines.dllama_files import read_model_header
from shared.checkpoints.dllama import FLOAT_TYPES, KEYS, MAGIC, parse, read_header
from shared.kernel.errors import ConfigurationError, DataError, EpiError

DENSE = {
    "version": 1, "arch_type": 0xABCD01, "dim": 64, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2,
    "n_experts": 0, "n_active_experts": 0, "vocab_size": 100, "max_seq_len": 128, "weights_float_type": 2,
}  # fmt: skip


def write(path: Path, pairs: list[tuple[int, int]], *, n_bytes: int | None = None, magic: int = MAGIC) -> Path:
    data = b"".join(struct.pack("<ii", *pair) for pair in pairs)
    path.write_bytes(struct.pack("<Ii", magic, 8 + len(data) if n_bytes is None else n_bytes) + data + bytes(64))
    return path


def pairs(**changed: int) -> list[tuple[int, int]]:
    return [(KEYS[name], value) for name, value in {**DENSE, **changed}.items()]


def test_a_dense_model_is_started_and_not_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "m", pairs())
    header = read_model_header(path)
    assert (header.architecture, header.n_layers, header.n_kv_heads, header.n_experts) == ("qwen3", 2, 2, 0)
    assert (header.seq_len, header.vocab_size, FLOAT_TYPES[header.weight_type][0]) == (128, 100, "Q40")
    with pytest.raises(ConfigurationError, match="qwen3 has no experts to cut"):
        parse(path)
    assert read_model_header(write(tmp_path / "m", pairs(arch_type=0x123))).architecture == "0x123"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([*pairs(), (KEYS["n_layers"], 3)], "repeated header key 4"),  # the agent took the last one
        ([*pairs(), (99, 1)], "unknown or repeated header key 99"),  # the agent ignored it, the engine throws
        (pairs(n_layers=0), "n_layers is 0"),  # the agent took any number
        (pairs(n_kv_heads=-1), "n_kv_heads is -1"),
        (pairs(max_seq_len=1 << 30), "max_seq_len is"),
        (pairs(weights_float_type=9), "weight type"),
        (pairs(n_active_experts=3), "impossible expert counts"),
        (pairs()[:4], "the header lacks n_layers"),
    ],
)  # fmt: skip
def test_both_refuse_the_same(tmp_path: Path, content: list[tuple[int, int]], reason: str) -> None:
    path = write(tmp_path / "m", content)
    for read in (read_model_header, read_header, parse):
        with pytest.raises(DataError, match=reason):
            read(path)


def test_size_magic_and_absence(tmp_path: Path) -> None:
    for path, reason in (
        (write(tmp_path / "long", pairs(), n_bytes=1 << 15), "a header of 32768 bytes"),  # the agent took 64 KiB
        (write(tmp_path / "odd", pairs(), n_bytes=12), "a header of 12 bytes"),
        (write(tmp_path / "other", pairs(), magic=7), "not a distributed-llama model"),
        (write(tmp_path / "without", pairs()[:-2] + pairs()[-1:]), "lacks max_seq_len"),
    ):
        with pytest.raises(DataError, match=reason):
            read_model_header(path)
    for read in (read_model_header, parse):
        with pytest.raises(EpiError, match="cannot read the model"):
            read(tmp_path / "none")
