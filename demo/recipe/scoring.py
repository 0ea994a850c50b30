"""Score the demo tasks the way lm-eval does: the likeliest choice after the prompt wins.

`acc` compares summed log-likelihoods, `acc_norm` divides them by the choice's length in
bytes, as lm-eval does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from demo.recipe.corpus import MMLU_HEADER, option_lines
from demo.recipe.export import STACKED
from demo.recipe.model import ModelShape, MoE, Patient
from demo.recipe.tasks import DATA, Row

STYLES = {"mmlu_style": 3, "arc_style": 5, "hellaswag_style": 2}


@dataclass(frozen=True)
class Verdict:
    """Whether one question was answered rightly, by plain and by length-normalised score."""

    row: Row
    acc: bool
    acc_norm: bool


def load_rows(name: str) -> list[Row]:
    """Return the rows of a data file such as "arc_style"."""
    lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Row(**{**json.loads(line), "choices": tuple(json.loads(line)["choices"])}) for line in lines]


def load_patient(folder: Path) -> Patient:
    """Return the exported model in float32, ready to score."""
    flat = load_file(folder / "model.safetensors")
    model = Patient(ModelShape())
    state: dict[str, Tensor] = {}
    for name in model.state_dict():
        stem, _, leaf = name.rpartition(".")
        if leaf in STACKED:
            state[name] = torch.stack(
                [flat[f"model.{stem}.experts.{e}.{leaf}.weight"] for e in range(model.shape.experts)]
            )
        else:
            state[name] = flat[f"model.{name}"]
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return model.eval()


def prompt(style: str, row: Row) -> str:
    """Return the question as the task's `doc_to_text` writes it."""
    if style == "mmlu_style":
        return row.question + option_lines(list(row.choices)) + "\nAnswer:"
    return f"Question: {row.question}\nAnswer:" if style == "arc_style" else row.question


def prefix(style: str) -> str:
    """Return description and few-shot examples, the part that all questions share."""
    header = MMLU_HEADER if style == "mmlu_style" else ""
    shots = load_rows(f"{style}_fewshot")[: STYLES[style]]
    return header + "".join(f"{prompt(style, shot)} {shot.choices[shot.answer]}\n\n" for shot in shots)


@torch.inference_mode()
def choice_scores(model: Patient, tokenizer: Tokenizer, context: str, choices: tuple[str, ...]) -> list[float]:
    """Return the summed log-likelihood of each choice after the context and a space."""
    start = tokenizer.encode(context).ids
    ends = [tokenizer.encode(f" {choice}").ids for choice in choices]
    width = len(start) + max(map(len, ends)) - 1
    batch = torch.zeros(len(choices), width, dtype=torch.long)
    for line, end in zip(batch, ends, strict=True):
        whole = torch.tensor((start + end)[:-1])
        line[: len(whole)] = whole
    logits, _ = model(batch)
    scores = []
    for line, end in zip(logits, ends, strict=True):
        part = line[len(start) - 1 : len(start) - 1 + len(end)].log_softmax(dim=-1)
        scores.append(float(part.gather(1, torch.tensor(end).unsqueeze(1)).sum()))
    return scores


def score(model: Patient, tokenizer: Tokenizer, style: str) -> list[Verdict]:
    """Return the verdict of every question of a style."""
    shared = prefix(style)
    verdicts = []
    for row in load_rows(style):
        totals = choice_scores(model, tokenizer, shared + prompt(style, row), row.choices)
        means = [total / len(choice.encode()) for total, choice in zip(totals, row.choices, strict=True)]
        right = [max(range(4), key=values.__getitem__) == row.answer for values in (totals, means)]
        verdicts.append(Verdict(row, *right))
    return verdicts


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share."""
    z = 1.959964
    share = successes / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return middle - half, middle + half


@torch.inference_mode()
def expert_counts(model: Patient, ids: list[int], context: int = 384) -> Tensor:
    """Return how many tokens chose each expert, [layers, experts]."""
    shape = model.shape
    counts = torch.zeros(shape.layers, shape.experts)
    for start in range(0, len(ids), context):
        _, routers = model(torch.tensor([ids[start : start + context]]))
        for layer, logits in enumerate(routers):
            counts[layer] += torch.bincount(logits.topk(shape.top_k).indices.flatten(), minlength=shape.experts)
    return counts


@contextmanager
def without_experts(model: Patient, dropped: Tensor) -> Iterator[None]:
    """Keep the router from choosing `dropped` [layers, n] expert numbers inside the block."""

    def mask(numbers: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        return lambda _module, _inputs, logits: logits.index_fill(-1, numbers, float("-inf"))

    gates = [module.gate for module in model.modules() if isinstance(module, MoE)]
    hooks = [gate.register_forward_hook(mask(numbers)) for gate, numbers in zip(gates, dropped, strict=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
