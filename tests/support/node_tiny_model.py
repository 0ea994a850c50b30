"""A tiny random qwen3moe GGUF with a real byte-level BPE vocabulary, for tests of engines and agents."""

from pathlib import Path

import gguf
import numpy as np

MERGES = ("t h", "h e", "a n", "Ġ t", "Ġt he", "i n", "Ġ a", "e r", "o n", "Ġa n", "Ġan d", "Ċ Ċ")


def byte_characters() -> list[str]:
    """Return the 256 printable stand-ins of GPT-2's byte-level BPE, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        table.setdefault(byte, chr(256 + sum(1 for known in range(byte) if known not in printable)))
    return [table[byte] for byte in range(256)]


def write_tiny_model(
    path: Path, *, n_layers: int = 4, n_experts: int = 4, bos: bool = False, context: int = 4096, seed: int = 7,
    hidden: int = 64,
) -> Path:  # fmt: skip
    """Write an F32 model of random weights, dense without experts; with `bos` its tokenizer asks for a BOS token."""
    rng = np.random.default_rng(seed)
    head, heads, kv_heads, width = 32, 4, 2, 64
    tokens = [*byte_characters(), *(merge.replace(" ", "") for merge in MERGES), "<|endoftext|>", "<|begin|>"]
    types = [gguf.TokenType.NORMAL] * (len(tokens) - 2) + [gguf.TokenType.CONTROL] * 2
    writer = gguf.GGUFWriter(path, "qwen3moe" if n_experts else "qwen3")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(n_layers)
    writer.add_context_length(context)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(width)
    writer.add_expert_feed_forward_length(width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    if n_experts:
        writer.add_expert_count(n_experts)
        writer.add_expert_used_count(2)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(list(MERGES))
    writer.add_eos_token_id(len(tokens) - 2)
    if bos:
        writer.add_bos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(bos)

    def weights(name: str, *shape: int, scale: float = 1.0) -> None:
        values = rng.standard_normal(shape) * scale / np.sqrt(shape[-1])
        writer.add_tensor(name, values.astype(np.float32))

    def ones(name: str, size: int) -> None:
        writer.add_tensor(name, np.ones(size, np.float32))

    weights("token_embd.weight", len(tokens), hidden, scale=4.0)
    ones("output_norm.weight", hidden)
    for layer in range(n_layers):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm.weight", hidden)
        ones(f"{block}.ffn_norm.weight", hidden)
        ones(f"{block}.attn_q_norm.weight", head)
        ones(f"{block}.attn_k_norm.weight", head)
        weights(f"{block}.attn_q.weight", heads * head, hidden)
        weights(f"{block}.attn_k.weight", kv_heads * head, hidden)
        weights(f"{block}.attn_v.weight", kv_heads * head, hidden)
        weights(f"{block}.attn_output.weight", hidden, heads * head)
        if not n_experts:
            weights(f"{block}.ffn_gate.weight", width, hidden)
            weights(f"{block}.ffn_up.weight", width, hidden)
            weights(f"{block}.ffn_down.weight", hidden, width)
            continue
        weights(f"{block}.ffn_gate_inp.weight", n_experts, hidden, scale=2.0)
        weights(f"{block}.ffn_gate_exps.weight", n_experts, width, hidden)
        weights(f"{block}.ffn_up_exps.weight", n_experts, width, hidden)
        weights(f"{block}.ffn_down_exps.weight", n_experts, hidden, width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
