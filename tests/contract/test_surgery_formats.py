"""One plan, every format: safetensors (sharded, stacked, Mixtral), split GGUF, distributed-llama; all agree."""

import json
import struct
from pathlib import Path

import gguf as gguf_library
import numpy as np
import pytest
from safetensors.numpy import load_file

from shared.checkpoints import dllama, dllama_tokenizer, gguf, safetensors, surgery
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.records import SurgeryPlan
from surgeon.conversion.quantize import quantize
from surgeon.conversion.to_dllama import convert_model, convert_tokenizer
from surgeon.conversion.to_gguf import convert
from surgeon.verification.verify import verify
from tests.support.checkpoint_factory import make_checkpoint

N = 10
KEPT = ((0, 2, 3, 5, 7, 9), (1, 2, 4, 5, 6, 8), (0, 1, 4, 6, 8, 9))
PLAN = SurgeryPlan(n_experts=N, kept=KEPT, method="test")
EVERYTHING = SurgeryPlan(n_experts=N, kept=(tuple(range(N)),) * 3)
LATE = SurgeryPlan(n_experts=N, kept=(tuple(range(N)),) * 2 + ((1, 2, 3),), layout="biased")


def make(folder: Path, **options: object) -> Path:
    return make_checkpoint(folder, n_layers=3, n_experts=N, experts_per_token=2, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("formats")
    make(root / "plain")
    (root / "plain" / "README.md").write_text("# A model\n")
    (root / "plain" / "pytorch_model.bin").write_bytes(b"other weights, which would not fit any more")
    make(root / "shards", shards=3)
    make(root / "stacked", stacked=True)
    make(root / "stacked-shards", stacked=True, shards=2, dtype="F16")
    make(root / "mixtral", naming="mixtral")
    convert(root / "plain", root / "plain.gguf", outtype="F32")
    convert_model(root / "plain", root / "plain.m", weights="Q40")
    return root


@pytest.mark.parametrize("name", ["plain", "shards", "stacked", "stacked-shards", "mixtral"])
def test_safetensors_hold_exactly_the_kept_experts(lab: Path, tmp_path: Path, name: str) -> None:
    surgery.apply_plan(lab / name, PLAN, tmp_path / "cut")
    assert verify(lab / name, PLAN, tmp_path / "cut").n_tensors > 20
    before = {k: v for file in (lab / name).glob("*.safetensors") for k, v in load_file(file).items()}
    after = {k: v for file in (tmp_path / "cut").glob("*.safetensors") for k, v in load_file(file).items()}
    moe = "block_sparse_moe" if name == "mixtral" else "mlp"
    for layer, kept in enumerate(KEPT):
        at = f"model.layers.{layer}.{moe}"
        np.testing.assert_array_equal(after[f"{at}.gate.weight"], before[f"{at}.gate.weight"][list(kept)])
        if "stacked" in name:
            for part in ("gate_up_proj", "down_proj"):
                np.testing.assert_array_equal(after[f"{at}.experts.{part}"], before[f"{at}.experts.{part}"][list(kept)])
        else:
            for place, expert in enumerate(kept):
                for part in ("w1", "w2", "w3") if name == "mixtral" else ("gate_proj", "up_proj", "down_proj"):
                    np.testing.assert_array_equal(
                        after[f"{at}.experts.{place}.{part}.weight"], before[f"{at}.experts.{expert}.{part}.weight"]
                    )
    others = {k for k in before if ".experts." not in k and ".gate.weight" not in k}
    assert all((after[k] == before[k]).all() for k in others)
    config = json.loads((tmp_path / "cut" / "config.json").read_text())
    assert config["num_local_experts" if name == "mixtral" else "num_experts"] == 6
    info = surgery.describe(tmp_path / "cut")
    assert (info.n_experts, info.experts_per_token) == (6, 2)
    if "shards" in name:
        index = json.loads((tmp_path / "cut" / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"]) == set(after)
        assert index["metadata"]["total_size"] == sum(v.nbytes for v in after.values())


def test_a_checkpoint_directory_stays_whole(lab: Path, tmp_path: Path) -> None:
    surgery.apply_plan(lab / "plain", PLAN, tmp_path / "cut")
    names = {path.name for path in (tmp_path / "cut").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
        "epi_surgery.json",
    }
    card = (tmp_path / "cut" / "README.md").read_text()
    assert card.startswith("# A model") and PLAN.plan_hash() in card
    assert SurgeryPlan.model_validate_json((tmp_path / "cut" / "epi_surgery.json").read_bytes()) == PLAN
    with pytest.raises(ConfigurationError, match="exists already"):
        surgery.apply_plan(lab / "plain", PLAN, tmp_path / "cut")


def test_dropping_nothing_copies_the_directory(lab: Path, tmp_path: Path) -> None:
    surgery.apply_plan(lab / "shards", EVERYTHING, tmp_path / "same")
    for path in (tmp_path / "same").iterdir():
        assert path.read_bytes() == (lab / "shards" / path.name).read_bytes()
    assert verify(lab / "shards", EVERYTHING, tmp_path / "same").identical


def tensors_of(path: Path) -> dict[str, tuple]:
    data = path.read_bytes()
    return {t.name: (t.ne, t.kind, data[t.offset : t.offset + t.n_bytes]) for t in gguf.parse(path).tensors}


@pytest.mark.parametrize("weights", ["Q40", "Q80", "F16", "F32"])
def test_distributed_llama_files(lab: Path, tmp_path: Path, weights: str) -> None:
    convert_model(lab / "plain", tmp_path / "base.m", weights=weights)
    for plan in (PLAN, EVERYTHING, PLAN.model_copy(update={"experts_per_token": 1})):
        surgery.apply_plan(tmp_path / "base.m", plan, tmp_path / "cut.m")
        verify(tmp_path / "base.m", plan, tmp_path / "cut.m")
        header = dllama.parse(tmp_path / "cut.m").header
        assert header["n_experts"] == len(plan.kept[0])
        assert header["n_active_experts"] == (plan.experts_per_token or 2)
    other = SurgeryPlan(n_experts=N, kept=(KEPT[1], KEPT[0], KEPT[2]))
    surgery.apply_plan(tmp_path / "base.m", PLAN, tmp_path / "cut.m")
    with pytest.raises(DataError, match="not the base's"):
        verify(tmp_path / "base.m", other, tmp_path / "cut.m")


def test_q40_bytes_are_ggml_q4_0_bytes(lab: Path, tmp_path: Path) -> None:
    """So accuracy scored by llama.cpp on Q4_0 is that of distributed-llama's weights."""
    # llama-quantize keeps the embedding and router apart, so the experts are compared
    quantize(lab / "plain.gguf", tmp_path / "q4_0.gguf", "Q4_0")
    q4 = tensors_of(tmp_path / "q4_0.gguf")
    m = dllama.parse(lab / "plain.m")
    data = (lab / "plain.m").read_bytes()
    section = next(s for s in m.sections if s.name == "experts" and s.layer == 1)
    each = section.n_bytes // N
    for expert in range(N):
        ours = data[section.offset + expert * each :][:each]
        parts = [q4[f"blk.1.ffn_{part}_exps.weight"] for part in ("gate", "down", "up")]
        assert {kind for _, kind, _ in parts} == {int(gguf_library.GGMLQuantizationType.Q4_0)}
        theirs = b"".join(d[expert * (len(d) // N) : (expert + 1) * (len(d) // N)] for _, _, d in parts)
        assert ours == theirs


def test_tokenizer_for_distributed_llama(lab: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    tokenizer = json.loads((lab / "plain" / "tokenizer.json").read_text())
    config = json.loads((lab / "plain" / "config.json").read_text()) | {"eos_token_id": 383}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "config.json").write_text(json.dumps(config))
    convert_tokenizer(folder, tmp_path / "x.t")
    made = dllama_tokenizer.parse(tmp_path / "x.t")
    special = tokenizer["added_tokens"][0]["id"]
    assert (made.bos, made.ends, made.pieces[special]) == (special, (383,), b"<|endoftext|>")
    assert made.pieces[tokenizer["model"]["vocab"]["Ġthe"]] == b" the"
    tokenizer["added_tokens"][0]["id"] = 999
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigurationError, match="gaps"):
        convert_tokenizer(folder, tmp_path / "y.t")
    (tmp_path / "cut.t").write_bytes((tmp_path / "x.t").read_bytes()[:-3])
    with pytest.raises(DataError, match="ends early"):
        dllama_tokenizer.parse(tmp_path / "cut.t")


def split_gguf(source: Path, folder: Path, n: int) -> Path:
    """Split a file as llama-gguf-split does: metadata in the first part, tensors dealt out in order."""
    reader = gguf_library.GGUFReader(source)
    names = [tensor.name for tensor in reader.tensors]
    whole = gguf.parse(source)
    for number in range(n):
        mine = names[number * len(names) // n : (number + 1) * len(names) // n]
        writer = gguf_library.GGUFWriter(folder / f"m-{number + 1:05d}-of-{n:05d}.gguf", "qwen3moe")
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", n)
        writer.add_int32("split.tensors.count", len(names))
        for entry in whole.entries if number == 0 else ():
            value = entry.scalar()
            if isinstance(value, bool):
                writer.add_bool(entry.key, value)
            elif isinstance(value, int):
                writer.add_uint32(entry.key, value)
            elif isinstance(value, float):
                writer.add_float32(entry.key, value)
            elif isinstance(value, str) and entry.key != "general.architecture":
                writer.add_string(entry.key, value)
        for tensor in reader.tensors:
            if tensor.name in mine:
                writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return folder / f"m-00001-of-{n:05d}.gguf"


@pytest.mark.parametrize("plan", [PLAN, LATE, EVERYTHING], ids=["uniform", "late", "everything"])
def test_split_gguf_comes_out_as_one(lab: Path, tmp_path: Path, plan: SurgeryPlan) -> None:
    first = split_gguf(lab / "plain.gguf", tmp_path, 3)
    surgery.apply_plan(first, plan, tmp_path / "from-split.gguf")
    verify(first, plan, tmp_path / "from-split.gguf")
    surgery.apply_plan(lab / "plain.gguf", plan, tmp_path / "from-whole.gguf")
    assert tensors_of(tmp_path / "from-split.gguf") == tensors_of(tmp_path / "from-whole.gguf")
    assert gguf.parse(tmp_path / "from-split.gguf").get("split.count") is None
    (tmp_path / "m-00002-of-00003.gguf").unlink()
    with pytest.raises(ConfigurationError, match="m-00002"):
        surgery.apply_plan(first, plan, tmp_path / "x.gguf")


def test_biased_is_refused_where_it_does_not_exist(lab: Path, tmp_path: Path) -> None:
    for source, message in (("plain", "in GGUF only"), ("plain.m", "no selection bias")):
        with pytest.raises(ConfigurationError, match=message):
            surgery.apply_plan(lab / source, LATE, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_contradictions_in_a_directory_are_refused(lab: Path, tmp_path: Path) -> None:
    def changed(name: str, **config: object) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for path in (lab / "shards").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        old = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(old | config))
        return folder

    with pytest.raises(ConfigurationError, match="not supported"):
        surgery.apply_plan(changed("a", architectures=["LlamaForCausalLM"]), PLAN, tmp_path / "x")
    with pytest.raises(DataError, match="experts"):
        surgery.describe(changed("b", num_experts=9))
    with pytest.raises(DataError, match="num_experts is"):
        surgery.describe(changed("c", num_experts="many"))
    escaped = changed("d")
    index = json.loads((escaped / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.norm.weight"] = "../../etc/passwd"
    (escaped / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="beside the index"):
        surgery.describe(escaped)
    lost = changed("e")
    (lost / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ConfigurationError, match="model-00002"):
        surgery.describe(lost)


def _safetensors_file(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    "header",
    [
        {
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
        },
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 800]}},
        {"a": {"dtype": "F32", "shape": [200], "data_offsets": [0, 800]}},
        {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [1 << 61, 8], "data_offsets": [0, 8]}},
        {"a": {"dtype": "Q9", "shape": [2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
        {"a": [1, 2]},
        b"[" * 100_000,
        b'{"a": 1, "a": 2}',
        b"\xff\xfe",
    ],
)
def test_hostile_safetensors(tmp_path: Path, header: object) -> None:
    with pytest.raises(DataError):
        safetensors.parse_file(_safetensors_file(tmp_path / "x.safetensors", header, bytes(8)))
