"""A tokenizer with special tokens first becomes distributed-llama's order, in the model's rows and in the tokenizer."""

from pathlib import Path

import numpy as np

from shared.checkpoints import dllama, dllama_tokenizer, safetensors
from surgeon.conversion.to_dllama import convert_model, convert_tokenizer, token_order
from surgeon.conversion.to_gguf import read_tensor, to_float32
from tests.support.benchmarks_reference import MODEL


def test_every_token_keeps_its_row(tmp_path: Path) -> None:
    order = token_order(MODEL)
    assert order[0] == 1 and order[-1] == 0, "the demo's end-of-text token is its first"
    convert_model(MODEL, tmp_path / "m.m", weights="F32")
    convert_tokenizer(MODEL, tmp_path / "m.t")
    tokenizer = dllama_tokenizer.parse(tmp_path / "m.t")
    last = len(tokenizer.pieces) - 1
    assert (tokenizer.bos, tokenizer.ends, tokenizer.pieces[-1]) == (last, (last,), b"<|endoftext|>")
    checkpoint = safetensors.parse(MODEL)
    rows = to_float32(read_tensor(checkpoint.tensors()["model.embed_tokens.weight"], None))
    file = dllama.parse(tmp_path / "m.m")
    for name in ("embedding", "output"):
        section = next(one for one in file.sections if one.name == name)
        found = np.fromfile(tmp_path / "m.m", np.float32, rows.size, offset=section.offset).reshape(rows.shape)
        assert np.array_equal(found, rows[order]), name
