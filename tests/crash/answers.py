"""What a campaign's answers were, without times and ledgers: what must not depend on who was killed when."""

import json
from collections.abc import Sequence
from typing import Any

from orchestrator.local.layout import LocalLab


def answers(lab: LocalLab, campaign: str, configurations: Sequence[str]) -> dict[str, list[Any]]:
    """Return configuration -> (question, choice, log-likelihoods) of the first repetition."""
    found = {}
    for name in configurations:
        text = (lab.out / campaign / name / "benchmark_001.json").read_text()
        found[name] = [(q["question_id"], q["choice"], q["log_likelihoods"]) for q in json.loads(text)["questions"]]
    return found
