"""A whole synthetic campaign written through the real evaluation and writer: 25 configurations and the control.

Truth: energy falls by `saving` per expert dropped, accuracy falls with the square of depth; early layers hurt most.
"""

from pathlib import Path

import numpy as np

from orchestrator.domain.campaign.matrix import parse_selection
from orchestrator.results.files import write_campaign
from orchestrator.results.schema import CampaignFile
from shared.kernel.records import Configuration, QuestionResult, TokenLedger
from tests.support.domain_lab import PROTOCOL, T0, block, load, run_input, write_measured

TASKS = ("demo_mmlu_2shot", "demo_arc_3shot", "demo_hellaswag_2shot")
_HARM = {"all": 1.0, "early": 0.8, "late": 0.3}


def true_accuracy(item: Configuration) -> float:
    return 0.78 - 0.006 * _HARM[item.group] * item.depth**2


def answers(item: Configuration, per_task: int, seed: int = 5) -> tuple[QuestionResult, ...]:
    """Questions of shared difficulty: the same seed asks every configuration the same."""
    shared = np.random.default_rng(seed)
    own = np.random.default_rng([seed, item.depth, len(item.group), item.layout == "biased"])
    out = []
    for task in TASKS:
        difficulty, noise = shared.uniform(size=per_task), own.normal(0, 0.04, per_task)
        for i in range(per_task):
            right = bool(difficulty[i] + noise[i] < true_accuracy(item))
            subject = f"s{i % 8}" if "mmlu" in task else ""
            out.append(
                QuestionResult(
                    task=task, question_id=f"q{i}", subject=subject, target=0, choice=0 if right else 1, correct=right,
                    metric="acc", log_likelihoods=(-1.0, -2.0, -3.0, -4.0), ledger=TokenLedger(scored=4),
                )
            )  # fmt: skip
    return tuple(out)


def write_campaign_tree(
    root: Path,
    selection: str = "all",
    repetitions: int = 3,
    per_task: int = 100,
    saving: float = 0.0,
    cv: float = 0.004,
) -> Path:
    """Write campaign.json and all runs; return `root`."""
    items = parse_selection(selection)
    campaign = CampaignFile(
        campaign_id="synthetic", title="Synthetic campaign", model="demo-moe", hardware="4 emulated nodes",
        instrument=run_input().instrument, created_utc_ns=T0, repetitions=repetitions, protocol=PROTOCOL,
        configurations=items,
    )  # fmt: skip
    write_campaign(root, campaign)
    rng = np.random.default_rng(11)
    for item in items:
        questions = answers(item, per_task)
        for repetition in range(1, repetitions + 1):
            gain = (1 - saving * item.depth) * float(np.exp(rng.normal(0, cv)))
            power = {f"n{i}": (lambda t, g=gain, i=i: 3 + (load(t) - 3) * g * (1 + 0.1 * i)) for i in range(1, 5)}
            samples = block(power, 16, late_s=0.12)
            run = run_input(item.id, repetition)
            write_measured(root, run, samples, questions)
    return root
