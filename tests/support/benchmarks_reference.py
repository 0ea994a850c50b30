"""What lm-eval's own Hugging Face backend answers on the demo model: taken live, or as recorded.

Record again whenever the demo model or its tasks change, where PyTorch is installed (`pip install -e .[train]`):

    python -m tests.support.benchmarks_reference

The record names the hash of the model and of the prompts it belongs to; the test refuses a record of other ones.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.benchmarks.records import SuiteSpec
from orchestrator.benchmarks.suite import BenchmarkSuite
from shared.kernel.records import Record

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "demo" / "model"
TASKS = ROOT / "demo" / "tasks"
RECORD = ROOT / "tests" / "data" / "hf_reference.json"
QUESTIONS = 100
LIVE_QUESTIONS = 10  # the live backend shares no prefixes and needs minutes where the engine needs seconds
ROLES = {
    "mmlu_5shot": "demo_mmlu_style_3shot",
    "arc_challenge_25shot": "demo_arc_style_5shot",
    "hellaswag_10shot": "demo_hellaswag_style_2shot",
}


class HfReference(Record):
    """Answers of lm-eval's Hugging Face backend in float32: [task][position in the suite's order]."""

    model_sha256: str
    prompts_sha256: dict[str, str]
    versions: dict[str, str]
    log_likelihoods: dict[str, tuple[tuple[float, ...], ...]]
    choices: dict[str, tuple[int, ...]]
    correct: dict[str, tuple[bool, ...]]


def demo_suite() -> BenchmarkSuite:
    """Return the suite that is compared."""
    return BenchmarkSuite(SuiteSpec.from_roles(ROLES, questions=QUESTIONS, seed=11, include_paths=(TASKS,)))


def model_sha256() -> str:
    """Return the hash of the demo model's weights, tokenizer and config."""
    digest = hashlib.sha256()
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        digest.update(hashlib.sha256((MODEL / name).read_bytes()).digest())
    return digest.hexdigest()


def can_run_live() -> bool:
    """Tell whether PyTorch, transformers and accelerate are here."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers", "accelerate"))


def take(chosen: Mapping[str, list[int]], prompts_sha256: dict[str, str]) -> HfReference:
    """Ask lm-eval's Hugging Face backend `chosen` documents of each task, by stock tasks and stock evaluation."""
    import lm_eval.evaluator
    import lm_eval.tasks
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=str(MODEL), device="cpu", dtype="float32", batch_size=16)
    manager = lm_eval.tasks.TaskManager(include_path=str(TASKS), include_defaults=False)
    outcome = lm_eval.evaluator.evaluate(
        lm=lm, task_dict=manager.load(list(chosen)), samples=dict(chosen), bootstrap_iters=0
    )
    assert outcome is not None
    samples = outcome["samples"]
    metrics = {task: "acc" if task == ROLES["mmlu_5shot"] else "acc_norm" for task in chosen}
    return HfReference(
        model_sha256=model_sha256(),
        prompts_sha256=prompts_sha256,
        versions={name: importlib.metadata.version(name) for name in ("lm_eval", "torch", "transformers")},
        log_likelihoods={
            task: tuple(tuple(round(float(v), 6) for v, _ in s["filtered_resps"]) for s in rows)
            for task, rows in samples.items()
        },
        choices={task: tuple(_choice(s, metrics[task]) for s in rows) for task, rows in samples.items()},
        correct={task: tuple(bool(s[metrics[task]]) for s in rows) for task, rows in samples.items()},
    )


def _choice(sample: dict[str, Any], metric: str) -> int:
    """Return the option lm-eval's metric takes: the likeliest, for acc_norm per character, the first of equals."""
    per = [len(option) if metric == "acc_norm" else 1 for option in sample["doc"]["choices"]]
    values = [float(value) / size for (value, _), size in zip(sample["filtered_resps"], per, strict=True)]
    return values.index(max(values))


def chosen_documents(suite: BenchmarkSuite) -> dict[str, list[int]]:
    """Return the line numbers, from 0, of the suite's questions in each task's file."""
    return {task: list(indices) for task, indices in suite.chosen_documents().items()}


def reference_for(suite: BenchmarkSuite) -> tuple[HfReference, str]:
    """Return the live reference (of the first questions) where PyTorch is installed, else the recorded one of all."""
    if can_run_live():
        first = {task: indices[:LIVE_QUESTIONS] for task, indices in chosen_documents(suite).items()}
        return take(first, prompts_of(suite)), "live"
    return HfReference.model_validate_json(RECORD.read_bytes()), "recorded"


def prompts_of(suite: BenchmarkSuite) -> dict[str, str]:
    """Return task -> hash of the prompts asked."""
    return {task.task: task.prompts_sha256 for task in suite.describe()}


def main() -> None:
    """Record the reference."""
    suite = demo_suite()
    reference = take(chosen_documents(suite), prompts_of(suite))
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(reference.model_dump(mode="json"), separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{RECORD}: {sum(len(rows) for rows in reference.correct.values())} questions, {reference.versions}")


if __name__ == "__main__":
    main()
