"""Figures of the benchmarks: `python -m tests.bench.bench_scoring [--engine-questions N]`.

1. Tokens evaluated with shared few-shot prefixes, against one full context pass a question plus its continuations
   (budget: ARC-Challenge 25-shot 0.06, HellaSwag format 10-shot 0.16, MMLU 5-shot 0.2), and against one pass a
   continuation. Counted over all questions with the demo model's tokenizer, as the engine's ledger counts them.
2. The same on the engine for N questions of each: its ledger must equal the count; wall-clock ratio in the same run.

Real MMLU and ARC-Challenge come from EPI_DATA_DIR. HellaSwag has no copy here: the demo's everyday stories in
HellaSwag's own file format stand in, and the line says so.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node_agent.engines.scoring import Scorer, common_prefix
from node_agent.engines.tokens import ScoredPair, Tokenizer
from orchestrator.benchmarks.records import SuiteSpec, TaskSpec
from orchestrator.benchmarks.suite import BenchmarkSuite
from shared.kernel.records import TokenLedger
from shared.llama.model import Context, Model
from shared.wire.node_jobs.workloads import ItemScore, ScoreGroup, ScoreItem, ScoreParams, ScoreResult
from surgeon.conversion.to_gguf import convert

ROOT = Path(__file__).parents[2]
CONTEXT_TOKENS, SEQUENCES = 16384, 32


@dataclass(frozen=True)
class Count:
    """Tokens evaluated: with shared prefixes, with one pass a question, with one pass a continuation."""

    shared: int
    per_question: int
    per_continuation: int
    questions: int

    def line(self) -> str:
        return (
            f"{self.questions} questions, {self.shared} tokens, "
            f"{self.shared / self.per_question:.4f} of one pass a question, "
            f"{self.shared / self.per_continuation:.4f} of one pass a continuation"
        )


def count(params: ScoreParams, tokenizer: Tokenizer) -> Count:
    """Count what the engine evaluates for `params`, without evaluating it."""
    shared = question = continuation = 0
    for group in params.groups:
        pairs = [encode(tokenizer, group.prefix, item) for item in group.items]
        prefix = min(
            common_prefix([row.inputs for item in pairs for row in (item[0], item[-1])]),
            min(len(item[0].context) - 1 for item in pairs),
        )
        whole = [distinct_tokens(item) for item in pairs]
        shared += prefix + sum(tokens - prefix for tokens in whole)
        question += sum(whole)
        continuation += sum(len(pair.inputs) for item in pairs for pair in item)
    return Count(shared, question, continuation, sum(len(group.items) for group in params.groups))


def encode(tokenizer: Tokenizer, prefix: str, item: ScoreItem) -> list[ScoredPair]:
    """Encode a question as the engine does."""
    ids = tokenizer.encode((prefix + item.suffix).rstrip())
    return [tokenizer.pair(prefix + item.suffix, text, ids) for text in item.continuations]


def distinct_tokens(pairs: Sequence[ScoredPair]) -> int:
    """Tokens of one question when its context is evaluated once and each different remainder once."""
    inputs = [pair.inputs for pair in pairs]
    common = common_prefix(inputs)
    return common + sum(len(rest) for rest in {row[common:] for row in inputs})


def captured(spec: SuiteSpec) -> ScoreParams:
    """Return the score job that a suite sends."""
    jobs: list[ScoreParams] = []

    def keep(params: ScoreParams) -> ScoreResult:
        jobs.append(params)
        blank = TokenLedger()
        groups = tuple(
            tuple(
                ItemScore(
                    log_likelihoods=(0.0,) * len(item.continuations),
                    greedy=(False,) * len(item.continuations),
                    ledger=blank,
                    start_utc_ns=0,
                    end_utc_ns=1,
                )
                for item in group.items
            )
            for group in params.groups
        )
        return ScoreResult(start_utc_ns=0, end_utc_ns=1, ledger=blank, groups=groups)

    BenchmarkSuite(spec).run(keep)
    return jobs[0]


def hellaswag_format(folder: Path) -> Path:
    """Write the demo's stories as HellaSwag files: the first ten are shots."""
    lines = (ROOT / "demo" / "tasks" / "data" / "hellaswag_style.jsonl").read_text(encoding="utf-8").splitlines()
    docs = [json.loads(line) for line in lines]
    rows = [
        {
            "activity_label": label,
            "ctx_a": context.strip(),
            "ctx_b": "",
            "endings": doc["choices"],
            "label": doc["answer"],
            "source_id": doc["id"],
        }
        for doc in docs
        for label, _, context in [doc["question"].partition(":")]
    ]
    (folder / "hellaswag").mkdir()
    for split, chosen in (("train", rows[::27][:10]), ("val", rows)):
        text = "".join(json.dumps(row) + "\n" for row in chosen)
        (folder / "hellaswag" / f"hellaswag_{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


def on_engine(model: Model, params: ScoreParams, n: int) -> str:
    """Score n questions with and without sharing; return the line of figures."""
    chosen = params.groups[:: max(1, len(params.groups) // 2)][:2]  # few subjects, many questions of each
    wanted = n // len(chosen)
    few = ScoreParams(groups=tuple(g.model_copy(update={"items": g.items[:wanted]}) for g in chosen))
    alone = ScoreParams(
        groups=tuple(ScoreGroup(prefix=g.prefix, items=(item,)) for g in few.groups for item in g.items)
    )
    tokenizer = Tokenizer(model)
    with Context(
        model, context_tokens=CONTEXT_TOKENS, batch_tokens=512, sequences=SEQUENCES, most_outputs=512
    ) as context:
        scorer = Scorer(context, tokenizer, context_tokens=CONTEXT_TOKENS, sequences=SEQUENCES, most_outputs=512)
        seconds, tokens = [], []
        for job in (few, alone):
            start = time.monotonic()
            result = scorer.score(job, lambda _fraction, _message: None)
            seconds.append(time.monotonic() - start)
            tokens.append(result.ledger.prompt)
    counted = count(few, tokenizer)
    if (counted.shared, counted.per_question) != tuple(tokens):
        raise SystemExit(f"the count {counted} differs from the engine's ledger {tokens}")
    return (
        f"engine, {counted.questions} questions: {tokens[0]} against {tokens[1]} tokens ({tokens[0] / tokens[1]:.4f}), "
        f"{seconds[0]:.2f} s against {seconds[1]:.2f} s ({seconds[0] / seconds[1]:.3f}); ledger equals the count"
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine-questions", type=int, default=40)
    n = parser.parse_args().engine_questions
    real = Path(os.environ["EPI_DATA_DIR"]) if os.environ.get("EPI_DATA_DIR") else None
    with tempfile.TemporaryDirectory() as name:
        gguf = Path(name) / "demo-f32.gguf"
        convert(ROOT / "demo" / "model", gguf, outtype="F32")
        sets: list[tuple[str, str, int, Path | None, float]] = [
            ("ARC-Challenge 25-shot, real", "arc_challenge", 25, real, 0.06),
            ("MMLU 5-shot, real, 57 subjects", "mmlu", 5, real, 0.2),
            ("HellaSwag 10-shot, format only (demo stories)", "hellaswag", 10, hellaswag_format(Path(name)), 0.16),
        ]
        with Model(gguf) as model:
            for title, task, shots, data_dir, budget in sets:
                if data_dir is None:
                    print(f"{title}: not measured, EPI_DATA_DIR is not set")
                    continue
                params = captured(SuiteSpec(tasks=(TaskSpec(name=task, shots=shots),), data_dir=data_dir))
                print(f"{title} (budget {budget}): {count(params, Tokenizer(model)).line()}", flush=True)
                print(f"  {on_engine(model, params, n)}", flush=True)


if __name__ == "__main__":
    main()
