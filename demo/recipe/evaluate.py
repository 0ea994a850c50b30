"""Measure the exported model and write the figures that the model card quotes.

Run it with `python -m demo.recipe.evaluate --output build/demo/evaluation.json`.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from tokenizers import Tokenizer

from demo.recipe.facts import DEMO
from demo.recipe.model import Patient
from demo.recipe.scoring import STYLES, Verdict, expert_counts, load_patient, score, wilson, without_experts

DROPS = (0, 4, 8, 12)


def share(verdicts: list[Verdict], normalised: bool) -> dict[str, float | int]:
    """Return accuracy, count and 95 % interval of some verdicts."""
    right = sum(verdict.acc_norm if normalised else verdict.acc for verdict in verdicts)
    low, high = wilson(right, len(verdicts))
    return {"accuracy": right / len(verdicts), "n": len(verdicts), "low": low, "high": high}


def by_phrasing(verdicts: list[Verdict]) -> dict[str, dict[str, float | int]]:
    """Return acc and acc_norm over all rows, then acc for each phrasing and subject."""
    result = {"acc": share(verdicts, False), "acc_norm": share(verdicts, True)}
    for phrasing in sorted({verdict.row.phrasing for verdict in verdicts}):
        result[phrasing] = share([v for v in verdicts if v.row.phrasing == phrasing], False)
    for subject in sorted({verdict.row.subject for verdict in verdicts}):
        result[f"subject {subject}"] = share([v for v in verdicts if v.row.subject == subject], False)
    return result


@torch.inference_mode()
def perplexity(model: Patient, ids: list[int], context: int = 384) -> float:
    """Return exp of the mean negative log-likelihood per token, in windows of `context`."""
    total, count = 0.0, 0
    for start in range(0, len(ids) - 1, context):
        window = torch.tensor([ids[start : start + context + 1]])
        logits, _ = model(window[:, :-1])
        total += float(torch.nn.functional.cross_entropy(logits[0], window[0, 1:], reduction="sum"))
        count += window.shape[1] - 1
    return math.exp(total / count)


def main() -> None:
    """Score every style with 0, 4, 8 and 12 of 16 experts dropped from every layer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEMO / "model")
    parser.add_argument("--output", type=Path, default=Path("build/demo/evaluation.json"))
    parser.add_argument("--drops", type=int, nargs="*", default=DROPS)
    args = parser.parse_args()
    model = load_patient(args.model)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted((DEMO / "calibration").glob("*.txt"))}
    counts = {name: expert_counts(model, tokenizer.encode(text).ids) for name, text in texts.items()}
    usage = torch.stack(list(counts.values())).sum(dim=0)
    held_out = tokenizer.encode((DEMO / "heldout.txt").read_text(encoding="utf-8")).ids
    report: dict[str, object] = {
        "usage": {name: (value / value.sum(dim=1, keepdim=True)).tolist() for name, value in counts.items()},
        "usage_all": (usage / usage.sum(dim=1, keepdim=True)).tolist(),
    }
    for drop in args.drops:
        least_used = usage.argsort(dim=1)[:, :drop]
        with without_experts(model, least_used):
            figures: dict[str, object] = {"perplexity": perplexity(model, held_out)}
            for style in STYLES:
                figures[style] = by_phrasing(score(model, tokenizer, style))
        report[f"drop {drop}"] = figures
        print(f"drop {drop}: {json.dumps(figures)}", flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
