"""Hugging Face safetensors -> distributed-llama .m (Q40, Q80, F16, F32 weights) and .t, without PyTorch.

Q40 blocks are ggml's Q4_0 blocks byte for byte, so ggml quantises them. Source of the order of tensors and header keys:
converter/ of distributed-llama v0.16.4 (commit 8d624a7).

distributed-llama takes every id from the beginning-of-text token on as special and every id before it as regular.
Where a tokenizer orders them otherwise, both files get the regular tokens first: an id is only a row's number.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import gguf
import numpy as np

from shared.checkpoints import dllama_tokenizer, safetensors
from shared.checkpoints.dllama import FLOAT_TYPES, QWEN3_MOE, pack_header
from shared.checkpoints.finite import require_finite
from shared.checkpoints.safetensors import Checkpoint, TensorEntry, read_json
from shared.files.atomic import atomic_write, write_file
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.progress import Progress
from surgeon.conversion.to_gguf import read_tensor, to_float32

_GGML: Final = {
    "Q40": gguf.GGMLQuantizationType.Q4_0, "Q80": gguf.GGMLQuantizationType.Q8_0,
    "F16": gguf.GGMLQuantizationType.F16, "F32": gguf.GGMLQuantizationType.F32,
}  # fmt: skip


def convert_model(source: Path, target: Path, *, weights: str = "Q40", on_progress: Progress | None = None) -> None:
    """Write the checkpoint `source` as the .m file `target`; one matrix is in memory at a time.

    Raises:
        ConfigurationError: not a Qwen3-MoE, or settings the format cannot express.
        DataError: a damaged checkpoint.
    """
    numbers = {name: number for number, (name, _, _) in FLOAT_TYPES.items()}
    if weights not in numbers:
        raise ConfigurationError(f"unknown weight type {weights!r}", hint=f"known: {', '.join(numbers)}")
    checkpoint = safetensors.parse(source)
    if checkpoint.architecture != "Qwen3MoeForCausalLM":
        raise ConfigurationError(
            f"{checkpoint.architecture or '(none)'!r} cannot be converted for distributed-llama", where=str(source),
            hint="supported: Qwen3MoeForCausalLM",
        )  # fmt: skip
    header = _model_header(checkpoint, numbers[weights])
    tensors = checkpoint.tensors()
    plan = list(_order(checkpoint, tensors))
    rows_of_tokens = _all_rows(token_order(source), header["vocab_size"])
    with atomic_write(target) as beside, beside.open("wb") as file:
        file.write(pack_header(header))
        for number, (name, is_matrix, tensor, rows) in enumerate(plan):
            values = to_float32(read_tensor(tensor, rows.expert))[rows.begin : rows.end]
            require_finite(values, name)
            if name in ("embedding", "output"):
                values = values[rows_of_tokens]
            kind = _GGML[weights if is_matrix else "F32"]
            np.asarray(gguf.quantize(np.ascontiguousarray(values), kind)).tofile(file)
            if on_progress is not None:
                on_progress((number + 1) / len(plan), name)


class _Rows:
    """Which part of a tensor is meant: an expert of a stacked one, and rows of it."""

    def __init__(self, expert: int | None = None, begin: int | None = None, end: int | None = None) -> None:
        self.expert, self.begin, self.end = expert, begin, end


def _order(checkpoint: Checkpoint, tensors: dict[str, TensorEntry]) -> Iterator[tuple[str, bool, TensorEntry, _Rows]]:
    def entry(*names: str) -> TensorEntry:
        for name in names:
            if name in tensors:
                return tensors[name]
        raise DataError(f"the tensor {names[0]!r} is missing", where=str(checkpoint.path))

    whole = _Rows()
    yield "embedding", False, entry("model.embed_tokens.weight"), whole
    for layer in range(checkpoint.integer("num_hidden_layers")):
        at = f"model.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{at}.{part}", True, entry(f"{at}.self_attn.{part}.weight"), whole
        yield f"{at}.router", False, entry(f"{at}.mlp.gate.weight"), whole
        stacked = tensors.get(f"{at}.mlp.experts.gate_up_proj")
        for expert in range(checkpoint.integer("num_experts")):
            for part in ("gate_proj", "down_proj", "up_proj"):
                name = f"{at}.mlp.experts.{expert}.{part}"
                if stacked is None:
                    yield name, True, entry(f"{name}.weight"), whole
                elif part == "down_proj":
                    yield name, True, entry(f"{at}.mlp.experts.down_proj"), _Rows(expert)
                else:
                    half = stacked.shape[1] // 2
                    rows = _Rows(expert, 0, half) if part == "gate_proj" else _Rows(expert, half, 2 * half)
                    yield name, True, stacked, rows
        for norm in ("self_attn.q_norm", "self_attn.k_norm", "input_layernorm", "post_attention_layernorm"):
            yield f"{at}.{norm}", False, entry(f"{at}.{norm}.weight"), whole
    yield "final_norm", False, entry("model.norm.weight"), whole
    yield "output", True, entry("lm_head.weight", "model.embed_tokens.weight"), whole


def _model_header(checkpoint: Checkpoint, weights: int) -> dict[str, int]:
    config, where = checkpoint.config, str(checkpoint.path / "config.json")
    epsilon = {1e-5: 5, 1e-6: 6}.get(float(config.get("rms_norm_eps", 1e-6)))
    theta = float(config.get("rope_theta") or (config.get("rope_parameters") or {}).get("rope_theta") or 10_000.0)
    if epsilon is None or theta != int(theta) or config.get("hidden_act", "silu") != "silu":
        raise ConfigurationError("rms_norm_eps, rope_theta or hidden_act cannot be expressed in a .m file", where=where)
    if config.get("rope_scaling"):
        raise ConfigurationError("rope scaling is not supported", where=where)
    n_heads = checkpoint.integer("num_attention_heads")
    head_dim = int(config.get("head_dim") or checkpoint.integer("hidden_size") // n_heads)
    return {
        "version": 0, "arch_type": QWEN3_MOE, "hidden_act": 1, "dim": checkpoint.integer("hidden_size"),
        "hidden_dim": int(config.get("intermediate_size") or 0), "n_layers": checkpoint.integer("num_hidden_layers"),
        "n_heads": n_heads, "n_kv_heads": checkpoint.integer("num_key_value_heads"), "weights_float_type": weights,
        "max_seq_len": checkpoint.integer("max_position_embeddings"), "vocab_size": checkpoint.integer("vocab_size"),
        "n_experts": checkpoint.integer("num_experts"), "n_active_experts": checkpoint.integer("num_experts_per_tok"),
        "rope_theta": int(theta), "head_dim": head_dim,
        "norm_epsilon": epsilon, "moe_hidden_dim": checkpoint.integer("moe_intermediate_size"),
    }  # fmt: skip


def convert_tokenizer(source: Path, target: Path) -> None:
    """Write tokenizer.json of `source` as the .t file `target`.

    Raises:
        ConfigurationError: no byte-level BPE, or no end-of-text token.
    """
    config = read_json(source / "config.json")
    settings_path = source / "tokenizer_config.json"
    settings = read_json(settings_path) if settings_path.exists() else {}
    tokens, added = _tokens(source)
    order = token_order(source)
    end = config.get("eos_token_id")
    place = {old: new for new, old in enumerate(order)}
    ends = [place.get(one, one) for one in ([end] if isinstance(end, int) else end or [])]
    begin = len(tokens) - len(added)  # as Qwen: no beginning-of-text token is ever added
    if not ends or not added:
        raise ConfigurationError("config.json names no beginning- or end-of-text token", where=str(source))
    pieces = [_token_bytes(tokens[number], number in added) for number in order]
    template = str(settings.get("chat_template") or "").encode()
    values = {
        "bos_id": begin, "version": 1, "vocab_size": len(pieces), "max_token_length": max(map(len, pieces)),
        **({"chat_template": len(template)} if template else {}), "n_eos_tokens": len(ends),
        "add_bos": int(bool(settings.get("add_bos_token", False))),
    }  # fmt: skip
    pairs = b"".join(struct.pack("<ii", dllama_tokenizer.KEYS[name], value) for name, value in values.items())
    data = struct.pack("<Ii", dllama_tokenizer.MAGIC, 8 + len(pairs)) + pairs + template
    data += struct.pack(f"<{len(ends)}i", *ends)
    data += b"".join(struct.pack("<fI", -float(number), len(piece)) + piece for number, piece in enumerate(pieces))
    write_file(target, data)


def token_order(source: Path) -> list[int]:
    """Return the old ids in the new order: regular tokens, the beginning-of-text token, other special ones.

    Qwen's own order is left as it is.

    Raises:
        ConfigurationError: the ids have gaps.
    """
    tokens, added = _tokens(source)
    begin = read_json(source / "config.json").get("bos_token_id")
    return sorted(tokens, key=lambda number: (number in added, number in added and number != begin, number))


def _tokens(source: Path) -> tuple[dict[int, str], set[int]]:
    """Return all tokens by id, and the ids of the special ones."""
    path = source / "tokenizer.json"
    tokenizer = read_json(path)
    tokens: dict[int, str] = {number: token for token, number in tokenizer["model"]["vocab"].items()}
    added = {entry["id"]: entry["content"] for entry in tokenizer.get("added_tokens", [])}
    tokens.update(added)
    if sorted(tokens) != list(range(len(tokens))):
        raise ConfigurationError("the token ids have gaps", where=str(path))
    return tokens, set(added)


def _all_rows(order: list[int], rows: int) -> list[int]:
    """Return the order of all rows; rows beyond the tokens are padding and stay last."""
    return [*order, *range(len(order), rows)]


def _token_bytes(token: str, is_added: bool) -> bytes:
    if is_added:
        return token.encode()
    return b"".join(bytes([_BYTE_OF[char]]) if char in _BYTE_OF else char.encode() for char in token)


def _byte_table() -> dict[str, int]:
    """Return GPT-2's printable stand-ins for bytes: printable ones are themselves, the others follow from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTE_OF: Final = _byte_table()
