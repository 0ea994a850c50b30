"""Write trained weights as a Hugging Face Qwen3MoeForCausalLM folder.

Run it with `python -m demo.recipe.export --work-dir build/demo --weights weights.pt`.

The folder's files are written beside the old ones and renamed one by one, weights last, so
a reader never sees half a file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from demo.recipe.facts import DEMO
from demo.recipe.model import ModelShape
from demo.recipe.tokenizer import end_id, write_tokenizer
from shared.files.atomic import move_into_place

STACKED = ("gate_proj", "up_proj", "down_proj")


def config(shape: ModelShape, end: int) -> dict[str, object]:
    """Return config.json's content."""
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.expert_hidden * shape.top_k,
        "moe_intermediate_size": shape.expert_hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "num_experts": shape.experts,
        "num_experts_per_tok": shape.top_k,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "max_position_embeddings": shape.max_positions,
        "rms_norm_eps": shape.rms_eps,
        "rope_theta": shape.rope_theta,
        "rope_scaling": None,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": shape.layers,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": end,
        "torch_dtype": "bfloat16",
    }


def unstack(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return bfloat16 tensors under Hugging Face names, one per expert and matrix."""
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stem, _, leaf = name.rpartition(".")
        if leaf in STACKED:
            for expert, matrix in enumerate(tensor):
                result[f"model.{stem}.experts.{expert}.{leaf}.weight"] = matrix.to(torch.bfloat16).contiguous()
        else:
            result[f"model.{name}"] = tensor.to(torch.bfloat16).contiguous()
    return result


def export(weights: Path, tokenizer: Tokenizer, target: Path, shape: ModelShape) -> None:
    """Write the model folder `target` from a training checkpoint."""
    target.mkdir(parents=True, exist_ok=True)
    end = end_id(tokenizer)
    state = torch.load(weights, map_location="cpu", weights_only=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        folder = Path(temporary)
        write_tokenizer(tokenizer, folder, shape.max_positions)
        (folder / "config.json").write_text(json.dumps(config(shape, end), indent=2) + "\n", encoding="utf-8")
        generation = {"eos_token_id": end, "pad_token_id": end, "do_sample": False, "max_new_tokens": 64}
        (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
        save_file(unstack(state), folder / "model.safetensors", metadata={"format": "pt"})
        for path in sorted(folder.iterdir(), key=lambda path: path.suffix == ".safetensors"):
            path.chmod(0o644)
            move_into_place(path, target / path.name)


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=Path("build/demo"))
    parser.add_argument("--weights", default="weights.pt")
    parser.add_argument("--target", type=Path, default=DEMO / "model")
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.work_dir / "tokenizer.json"))
    export(args.work_dir / args.weights, tokenizer, args.target, ModelShape())


if __name__ == "__main__":
    main()
