"""Makes small random Mixture-of-Experts checkpoints in exact Hugging Face format, for tests and benches.

Real files of the real format, with random weights: no test double of anything in the product.
"""

import json
from pathlib import Path

import numpy as np
import sentencepiece
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from surgeon.conversion.vocabulary import QWEN2_PATTERN

TEXT = (
    "The river Rhine flows north to the sea. Water boils at one hundred degrees. A cat sleeps in the sun while the dog"
    " digs a hole. Paris is the capital of France; Rome is the capital of Italy. How many legs has a spider? Eight.\n"
) * 4


def make_tokenizer(folder: Path, vocab_size: int) -> None:
    """Train a byte-level BPE tokenizer in Qwen2's style on a little text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False})
    )


def make_sentencepiece(folder: Path, vocab_size: int) -> None:
    """Train a SentencePiece BPE tokenizer with bytes, in Llama's style, on a little text."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()), model_prefix=str(folder / "tokenizer"), model_type="bpe",
        vocab_size=vocab_size, byte_fallback=True, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    (folder / "tokenizer.vocab").unlink()


def make_checkpoint(
    folder: Path,
    *,
    n_layers: int = 4,
    n_experts: int = 12,
    experts_per_token: int = 3,
    hidden: int = 64,
    expert_hidden: int = 32,
    vocab_size: int = 384,
    heads: int = 2,
    kv_heads: int = 1,
    head_dim: int = 32,
    dtype: str = "F32",
    seed: int = 0,
    naming: str = "qwen3",
    stacked: bool = False,
    shards: int = 1,
) -> Path:
    """Write a checkpoint with random weights and return its folder.

    `naming` "qwen2" gives a Qwen2MoeForCausalLM, "mixtral" a MixtralForCausalLM with a SentencePiece tokenizer;
    `stacked` gives the newer stacked experts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)

    def draw(*shape: int, std: float | None = None) -> np.ndarray:
        return random.normal(0, std or shape[-1] ** -0.5, shape).astype(np.float32)

    tensors = {"model.embed_tokens.weight": draw(vocab_size, hidden, std=0.5)}
    tensors["model.norm.weight"] = 1 + draw(hidden, std=0.1)
    for layer in range(n_layers):
        at = f"model.layers.{layer}"
        tensors[f"{at}.input_layernorm.weight"] = 1 + draw(hidden, std=0.1)
        tensors[f"{at}.post_attention_layernorm.weight"] = 1 + draw(hidden, std=0.1)
        tensors[f"{at}.self_attn.q_proj.weight"] = draw(heads * head_dim, hidden)
        tensors[f"{at}.self_attn.k_proj.weight"] = draw(kv_heads * head_dim, hidden)
        tensors[f"{at}.self_attn.v_proj.weight"] = draw(kv_heads * head_dim, hidden)
        tensors[f"{at}.self_attn.o_proj.weight"] = draw(hidden, heads * head_dim)
        tensors[f"{at}.self_attn.q_norm.weight"] = 1 + draw(head_dim, std=0.1)
        tensors[f"{at}.self_attn.k_norm.weight"] = 1 + draw(head_dim, std=0.1)
        tensors[f"{at}.mlp.gate.weight"] = draw(n_experts, hidden, std=2 * hidden**-0.5)
        for expert in range(n_experts):
            scale = 1 + expert / n_experts  # so that experts differ in how much they say
            tensors[f"{at}.mlp.experts.{expert}.gate_proj.weight"] = draw(expert_hidden, hidden)
            tensors[f"{at}.mlp.experts.{expert}.up_proj.weight"] = draw(expert_hidden, hidden)
            tensors[f"{at}.mlp.experts.{expert}.down_proj.weight"] = scale * draw(hidden, expert_hidden)
    if naming != "qwen3":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
        for layer in range(n_layers):
            at = f"model.layers.{layer}"
            del tensors[f"{at}.self_attn.q_norm.weight"], tensors[f"{at}.self_attn.k_norm.weight"]
    if naming == "qwen2":
        for layer in range(n_layers):
            at = f"model.layers.{layer}"
            for part, rows in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
                tensors[f"{at}.self_attn.{part}_proj.bias"] = draw(rows * head_dim, std=0.1)
            tensors[f"{at}.mlp.shared_expert_gate.weight"] = draw(1, hidden)
            for part, shape in (("gate", (48, hidden)), ("up", (48, hidden)), ("down", (hidden, 48))):
                tensors[f"{at}.mlp.shared_expert.{part}_proj.weight"] = draw(*shape)
    if naming == "mixtral":
        tensors = {_mixtral(name): value for name, value in tensors.items()}
    if stacked:
        tensors = _stacked(tensors, n_layers, n_experts)
    _save({name: _as(value, dtype) for name, value in tensors.items()}, folder, shards)
    config = {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": hidden,
        "intermediate_size": expert_hidden * experts_per_token, "moe_intermediate_size": expert_hidden,
        "num_hidden_layers": n_layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "head_dim": head_dim, "num_experts": n_experts, "num_experts_per_tok": experts_per_token,
        "norm_topk_prob": True, "vocab_size": vocab_size, "max_position_embeddings": 512, "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
        "hidden_act": "silu", "torch_dtype": "float32" if dtype == "F32" else "float16",
    }  # fmt: skip
    if naming == "qwen2":
        config |= {"architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "norm_topk_prob": False}
        config |= {"shared_expert_intermediate_size": 48, "tie_word_embeddings": False}
    if naming == "mixtral":
        config |= {"architectures": ["MixtralForCausalLM"], "num_local_experts": config.pop("num_experts")}
        config |= {"intermediate_size": config.pop("moe_intermediate_size"), "tie_word_embeddings": False}
        config |= {"model_type": "mixtral", "bos_token_id": 1, "eos_token_id": 2}
        del config["norm_topk_prob"], config["decoder_sparse_step"], config["mlp_only_layers"]
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (make_sentencepiece if naming == "mixtral" else make_tokenizer)(folder, vocab_size)
    return folder


def _as(values: np.ndarray, dtype: str) -> np.ndarray:
    return np.ascontiguousarray(values.astype(np.float16 if dtype == "F16" else np.float32))


def _mixtral(name: str) -> str:
    for old, new in (("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2"), (".mlp.", ".block_sparse_moe.")):
        name = name.replace(old, new)
    return name


def _stacked(tensors: dict[str, np.ndarray], n_layers: int, n_experts: int) -> dict[str, np.ndarray]:
    result = {name: value for name, value in tensors.items() if ".experts." not in name}
    for layer in range(n_layers):
        at = f"model.layers.{layer}.mlp.experts"

        def stack(part: str, at: str = at) -> np.ndarray:
            return np.stack([tensors[f"{at}.{expert}.{part}.weight"] for expert in range(n_experts)])

        result[f"{at}.gate_up_proj"] = np.concatenate([stack("gate_proj"), stack("up_proj")], axis=1)
        result[f"{at}.down_proj"] = stack("down_proj")
    return result


def _save(tensors: dict[str, np.ndarray], folder: Path, shards: int) -> None:
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[number::shards]}
        save_file(part, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(value.nbytes for value in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
