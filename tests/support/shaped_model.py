"""A model with the shapes of Qwen3-30B-A3B, as few layers as wanted, and no data: its weights are holes of a file.

Every size that llama.cpp and we calculate from is true; a file of gigabytes takes kilobytes of disk.
"""

from pathlib import Path

import gguf
import numpy as np

from shared.checkpoints import gguf as our_gguf
from shared.checkpoints.hollow import retyped, write_hollow
from surgeon.conversion.quantize import quantized_types
from tests.support.node_tiny_model import byte_characters

VOCABULARY, HIDDEN, HEADS, KV_HEADS, HEAD, WIDTH, EXPERTS = 151_936, 2048, 32, 4, 128, 768, 128


def write_shaped_model(path: Path, *, n_layers: int = 4, n_experts: int = EXPERTS, words: bool = True) -> Path:
    """Write the model in F16; without `words`, which cost a second, it has no vocabulary and cannot be asked."""
    writer = gguf.GGUFWriter(path, "qwen3moe")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_block_count(n_layers)
    writer.add_context_length(40_960)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(6144)
    writer.add_expert_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_expert_count(n_experts)
    writer.add_expert_used_count(8)
    if words:
        _add_words(writer)
    tensors: list[tuple[str, tuple[int, ...], type[np.generic]]] = [
        ("token_embd.weight", (VOCABULARY, HIDDEN), np.float16), ("output_norm.weight", (HIDDEN,), np.float32),
        ("output.weight", (VOCABULARY, HIDDEN), np.float16),
    ]  # fmt: skip
    for layer in range(n_layers):
        block = f"blk.{layer}"
        tensors += [(f"{block}.{name}_norm.weight", (HIDDEN,), np.float32) for name in ("attn", "ffn")]
        tensors += [(f"{block}.attn_{name}_norm.weight", (HEAD,), np.float32) for name in ("q", "k")]
        tensors += [
            (f"{block}.attn_q.weight", (HEADS * HEAD, HIDDEN), np.float16),
            (f"{block}.attn_k.weight", (KV_HEADS * HEAD, HIDDEN), np.float16),
            (f"{block}.attn_v.weight", (KV_HEADS * HEAD, HIDDEN), np.float16),
            (f"{block}.attn_output.weight", (HIDDEN, HEADS * HEAD), np.float16),
            (f"{block}.ffn_gate_inp.weight", (n_experts, HIDDEN), np.float32),
            (f"{block}.ffn_gate_exps.weight", (n_experts, WIDTH, HIDDEN), np.float16),
            (f"{block}.ffn_up_exps.weight", (n_experts, WIDTH, HIDDEN), np.float16),
            (f"{block}.ffn_down_exps.weight", (n_experts, HIDDEN, WIDTH), np.float16),
        ]
    size = 0
    for name, shape, dtype in tensors:
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        size += -(-n_bytes // 32) * 32
        writer.add_tensor_info(name, shape, np.dtype(dtype), n_bytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    head = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(-(-head // 32) * 32 + size)
    return path


def _add_words(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    characters = byte_characters()
    writer.add_token_list([*characters, *(f"<|{number}|>" for number in range(len(characters), VOCABULARY))])
    writer.add_token_types([gguf.TokenType.NORMAL] * VOCABULARY)
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(VOCABULARY - 1)


def write_quantised(source: Path, target: Path, quantization: str = "Q4_K_M") -> Path:
    """Write what quantising `source` would give, its data holes too; it can be loaded."""
    write_hollow(retyped(our_gguf.load(source), quantized_types(source, quantization)), target)
    return target
