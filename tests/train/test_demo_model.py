"""The exported demo model: format, size and a few answers. Needs the `train` extra: `make test-train`."""

from __future__ import annotations

import json

import tokenizers
import torch

from demo.recipe.facts import DEMO
from demo.recipe.model import ModelShape, MoE
from demo.recipe.scoring import expert_counts, load_patient, without_experts

MODEL = DEMO / "model"
MAX_BYTES = 30_000_000


def test_moe_equals_the_plain_sum_over_chosen_experts() -> None:
    torch.manual_seed(0)
    shape = ModelShape(hidden=8, experts=4, top_k=2, expert_hidden=8)
    layer = MoE(shape)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(5, 8)
    output, logits = layer(x)
    for row, result, scores in zip(x, output, logits.softmax(dim=-1), strict=True):
        weights, chosen = scores.topk(2)
        expected = torch.zeros(8)
        for weight, expert in zip(weights / weights.sum(), chosen.tolist(), strict=True):
            hidden = torch.nn.functional.silu(layer.gate_proj[expert] @ row) * (layer.up_proj[expert] @ row)
            expected += weight * (layer.down_proj[expert] @ hidden)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_config_names_a_qwen3_moe_with_sixteen_experts() -> None:
    config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen3MoeForCausalLM"]
    assert (config["num_experts"], config["num_experts_per_tok"]) == (16, 4)
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= MAX_BYTES


def test_model_says_what_the_sanity_prompts_expect() -> None:
    model = load_patient(MODEL)
    tokenizer = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    for line in (DEMO / "sanity_prompts.jsonl").read_text(encoding="utf-8").splitlines():
        sanity = json.loads(line)
        ids = tokenizer.encode(sanity["prompt"]).ids
        start = len(ids)
        for _ in range(8):
            with torch.inference_mode():
                ids.append(int(model(torch.tensor([ids]))[0][0, -1].argmax()))
        assert sanity["expect"] in tokenizer.decode(ids[start:]), sanity["id"]


def test_dropped_experts_are_never_chosen() -> None:
    model = load_patient(MODEL)
    dropped = torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]])
    with without_experts(model, dropped):
        counts = expert_counts(model, list(range(100)))
    assert counts.gather(1, dropped).sum() == 0
    assert counts.sum() == 100 * 4 * 4
