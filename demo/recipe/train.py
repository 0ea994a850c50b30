"""Train the model on the packed corpus.

Run it with `python -m demo.recipe.train --work-dir build/demo --steps 3300`.

Learning rate: warm-up, stable, then a decay to zero.  `--max-minutes` shortens the run on
a slow machine: the schedule follows whichever of steps and minutes is further along.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as fn

from demo.recipe.model import ModelShape, Patient, balance_loss, z_loss
from shared.files.atomic import atomic_write, write_file

PRINT_STEPS = 20


@dataclass(frozen=True)
class Recipe:
    """The numbers of the training run."""

    batch: int = 6
    context: int = 384
    peak_lr: float = 3e-3
    warmup_steps: int = 100
    decay_share: float = 0.45
    weight_decay: float = 0.05
    clip: float = 1.0
    # Light balancing that ends with the run: expert use stays uneven, as in real models.
    balance: float = 1e-3
    router_z: float = 1e-4
    seed: int = 7
    # Matrix products in bfloat16; weights, optimiser and losses stay in float32.
    bfloat16: bool = True


@dataclass(frozen=True)
class Plan:
    """How long one run is and where it starts."""

    steps: int
    max_minutes: float
    save_minutes: float
    init: Path | None = None
    skip_steps: int = 0


def learning_rate(recipe: Recipe, step: int, progress: float) -> float:
    """Return the rate at a step, progress being the share of the run that is over."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    left = max(0.0, min(1.0, (1.0 - progress) / recipe.decay_share))
    return recipe.peak_lr * warm * left


def weighted_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits [b, t, v] at targets [b, t], weighted by weights [b, t]."""
    losses = fn.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * weights.flatten()).sum() / weights.sum()


def save(model: Patient, path: Path, facts: dict[str, float]) -> None:
    """Write the weights and the run's figures beside them, each atomically."""
    with atomic_write(path) as beside:
        torch.save(model.state_dict(), beside)
    write_file(path.with_suffix(".json"), json.dumps(facts, indent=2) + "\n")


def optimiser(model: Patient, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW with weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak_lr, betas=(0.9, 0.95), fused=True)


class Batches:
    """The packed corpus, cut into batches in order."""

    def __init__(self, path: Path, recipe: Recipe) -> None:
        corpus = np.load(path)
        self.recipe = recipe
        self.span = recipe.batch * recipe.context
        self.ids = torch.from_numpy(corpus["ids"].astype(np.int64))
        self.weights = torch.from_numpy(corpus["weights"].astype(np.float32))

    def __len__(self) -> int:
        """Return the number of whole batches."""
        return (len(self.ids) - 1) // self.span

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return (inputs, targets, loss weights of the targets), each [batch, context]."""
        start, end = number * self.span, (number + 1) * self.span
        form = (self.recipe.batch, self.recipe.context)
        parts = (self.ids[start:end], self.ids[start + 1 : end + 1], self.weights[start + 1 : end + 1])
        return parts[0].view(form), parts[1].view(form), parts[2].view(form)


def losses(model: Patient, recipe: Recipe, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return (language loss, load-balancing loss, router z-loss) of a batch, each a scalar."""
    inputs, targets, weights = batch
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.bfloat16):
        logits, routers = model(inputs)
    balance = torch.stack([balance_loss(router, model.shape.top_k) for router in routers]).mean()
    stability = torch.stack([z_loss(router) for router in routers]).mean()
    return weighted_loss(logits.float(), targets, weights), balance, stability


def train(work_dir: Path, recipe: Recipe, plan: Plan) -> None:
    """Run the training and write work_dir/weights.pt, now and then work_dir/checkpoint.pt."""
    torch.manual_seed(recipe.seed)
    batches = Batches(work_dir / "corpus.npz", recipe)
    if plan.skip_steps + plan.steps > len(batches):
        raise ValueError(f"the corpus has {len(batches)} batches only; build a longer one or train fewer steps")
    model = Patient(ModelShape())
    if plan.init is not None:
        model.load_state_dict(torch.load(plan.init, weights_only=True))
    optimizer = optimiser(model, recipe)
    start = last_save = time.monotonic()
    step = 0
    progress = 0.0
    average = 0.0
    while progress < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, progress)
        loss, balance, stability = losses(model, recipe, batches[plan.skip_steps + step])
        extra = recipe.balance * (1.0 - progress) * balance + recipe.router_z * stability
        torch.autograd.backward(loss + extra)
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        average = loss.item() if step == 1 else 0.98 * average + 0.02 * loss.item()
        minutes = (time.monotonic() - start) / 60.0
        progress = max(step / plan.steps, minutes / plan.max_minutes)
        figures = {
            "steps": step,
            "tokens": step * batches.span,
            "minutes": minutes,
            "cpu_minutes": time.process_time() / 60.0,
            "loss": average,
            "balance": balance.item(),
        }
        if step % PRINT_STEPS == 0:
            print(json.dumps({"progress": round(progress, 4), **figures}), flush=True)
        if time.monotonic() - last_save > plan.save_minutes * 60.0:
            save(model, work_dir / "checkpoint.pt", figures)
            last_save = time.monotonic()
    save(model, work_dir / "weights.pt", figures)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=Path("build/demo"))
    parser.add_argument("--steps", type=int, default=3400)
    parser.add_argument("--max-minutes", type=float, default=math.inf)
    parser.add_argument("--save-minutes", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--init", type=Path, help="go on from these weights (the optimiser starts run_fresh)")
    parser.add_argument("--skip-steps", type=int, default=0, help="batches of the corpus that were used before")
    parser.add_argument("--peak-lr", type=float, default=Recipe.peak_lr)
    parser.add_argument("--decay-share", type=float, default=Recipe.decay_share)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    plan = Plan(args.steps, args.max_minutes, args.save_minutes, args.init, args.skip_steps)
    train(args.work_dir, replace(Recipe(), peak_lr=args.peak_lr, decay_share=args.decay_share), plan)


if __name__ == "__main__":
    main()
