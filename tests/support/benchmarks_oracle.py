"""Helpers of the benchmark tests: a task folder on disk, and a scorer whose answer depends on the text alone."""

import json
import zlib
from pathlib import Path

from shared.kernel.records import TokenLedger
from shared.wire.node_jobs.workloads import ItemScore, ScoreParams, ScoreResult

TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {name}_test.jsonl
    dev: {name}_dev.jsonl
output_type: multiple_choice
test_split: test
fewshot_split: dev
num_fewshot: {shots}
fewshot_config:
  sampler: first_n
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
{metrics}
metadata:
  version: 1.5
"""
METRIC = "  - metric: {}\n    aggregation: mean\n    higher_is_better: true"


def write_task(
    folder: Path, name: str, *, shots: int = 3, questions: int = 40, metrics: tuple[str, ...] = ("acc", "acc_norm")
) -> None:
    """Write a four-option arithmetic task of `questions` questions in five subjects."""
    text = TASK.format(name=name, shots=shots, metrics="\n".join(METRIC.format(metric) for metric in metrics))
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    for split, count in (("test", questions), ("dev", 6)):
        lines = [json.dumps(_question(name, split, i)) for i in range(count)]
        (folder / f"{name}_{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _question(name: str, split: str, i: int) -> dict[str, object]:
    return {
        "id": f"{name}-{split}-{i}",
        "subject": f"subject {i % 5}",
        "question": f"What is {i} plus {i} ({split})?",
        "choices": [f"it is {2 * i}", f"{2 * i + 1}", f"about {i}, I should say", "nobody knows"],
        "answer": i % 4,
    }


def oracle(context: str, continuation: str) -> tuple[float, bool]:
    """Return a made-up but fixed log-likelihood and greedy flag of a continuation after a context."""
    crc = zlib.crc32(f"{context}\x00{continuation}".encode())
    return -(crc % 100_003) / 1000 - len(continuation), crc % 3 == 0


class OracleEngine:
    """Answers score jobs by `oracle` and counts how often it was asked."""

    def __init__(self) -> None:
        self.calls: list[ScoreParams] = []

    def __call__(self, params: ScoreParams) -> ScoreResult:
        self.calls.append(params)
        clock = 1_000
        groups = []
        for group in params.groups:
            items = []
            for number, item in enumerate(group.items):
                answers = [oracle(group.prefix + item.suffix, text) for text in item.continuations]
                items.append(
                    ItemScore(
                        log_likelihoods=tuple(value for value, _ in answers),
                        greedy=tuple(greedy for _, greedy in answers),
                        ledger=TokenLedger(
                            prompt=len(item.suffix) + (len(group.prefix) if number == 0 else 0),
                            scored=len(item.continuations),
                        ),
                        start_utc_ns=clock,
                        end_utc_ns=clock + 10,
                    )
                )
                clock += 10
            groups.append(tuple(items))
        ledger = TokenLedger()
        for answered in (item for group_items in groups for item in group_items):
            ledger = ledger + answered.ledger
        return ScoreResult(start_utc_ns=1_000, end_utc_ns=clock, ledger=ledger, groups=tuple(groups))
