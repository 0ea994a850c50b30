"""The table of methods x depth on the demo model, with confidence intervals: docs/surgery-methods.md.

    python -m tests.bench.bench_methods [--depths 2,4,6,8] [--eep-iterations 40] [--merge-iterations 30]

Everything is evaluated by masking on the F16 model, on the half of the questions that no search sees. Intervals are
95 % percentile bootstraps over questions, stratified by task; the difference from random is paired by question.
"""

import argparse
import datetime
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.files.durability import hash_file
from shared.kernel.records import SurgeryPlan
from surgeon.conversion.to_gguf import convert
from surgeon.observation.corpus import load_corpus
from surgeon.observation.observe import ObserveOptions, observe
from surgeon.planning import allocation
from surgeon.planning.merging import MergeArrays
from surgeon.rankings.base import RankingInputs
from surgeon.rankings.registry import RANKINGS, ranking_named
from surgeon.search.evolution import Candidate, EepOptions, Fitness, FitnessCache, search
from surgeon.search.merge_evolution import MergeOptions, WeightsInMemory, search_merge
from surgeon.search.offline_experts import LayerExperts
from surgeon.search.reconstruction import ReconstructionLoss, search_layer
from surgeon.search.task_fitness import TaskFitness

DEMO = Path(__file__).parents[2] / "demo"
TASKS = {"arc_style": "", "hellaswag_style": "{question}", "mmlu_style": ""}
SEEDS = (0, 1, 2)


class Table:
    """Right and wrong answers by method and depth, on the validation questions."""

    def __init__(self, fitness: TaskFitness, sizes: Sequence[int], cache: Path | None) -> None:
        self._fitness = fitness
        self._known, self._cache = {}, cache and cache.with_suffix(".answers")
        if self._cache is not None and self._cache.exists():
            self._known = dict(map(json.loads, self._cache.read_text().splitlines()))
        self._bounds = np.cumsum([0, *sizes])
        self.answers: dict[tuple[str, int], np.ndarray] = {}

    def measure(self, name: str, depth: int, kepts: Sequence[Sequence[Sequence[int]] | None]) -> None:
        """Evaluate one or more sets of experts (seeds) under one name."""
        rows = [np.array(self._validation_answers(kept), float) for kept in kepts]
        self.answers[name, depth] = np.mean(rows, axis=0)
        print(f"{name} {depth}: {self.accuracy(self.answers[name, depth]):.3f}", flush=True)

    def _validation_answers(self, kept: Sequence[Sequence[int]] | None) -> list[bool]:
        key = f"{self._fitness.identity} {json.dumps(kept)}"
        if key not in self._known:
            self._known[key] = self._fitness.validation_answers(None if kept is None else tuple(map(tuple, kept)))
            if self._cache is not None:
                with self._cache.open("a") as file:
                    file.write(json.dumps([key, self._known[key]]) + "\n")
        return self._known[key]

    def accuracy(self, answers: np.ndarray) -> float:
        return float(np.mean([answers[a:b].mean() for a, b in zip(self._bounds, self._bounds[1:], strict=False)]))

    def interval(self, answers: np.ndarray) -> tuple[float, float]:
        draw = np.random.default_rng(0)
        values = []
        for _ in range(2000):
            picks = [draw.integers(a, b, b - a) for a, b in zip(self._bounds, self._bounds[1:], strict=False)]
            values.append(np.mean([answers[pick].mean() for pick in picks]))
        return tuple(np.percentile(values, [2.5, 97.5]))


def naee(model: Path, inputs: np.ndarray, keep: int, k: int) -> list[tuple[int, ...]]:
    kept = []
    for layer, sample in enumerate(inputs):
        experts = LayerExperts.load(model, layer)
        loss = ReconstructionLoss(experts.probabilities(sample), experts.outputs(sample), k)
        kept.append(search_layer(loss, keep).kept)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", default="2,4,6,8")
    parser.add_argument("--eep-iterations", type=int, default=40)
    parser.add_argument("--merge-iterations", type=int, default=30)
    parser.add_argument("--output", type=Path, default=DEMO.parent / "docs" / "surgery-methods.md")
    parser.add_argument("--cache", type=Path, default=None, help="what is known: a killed run goes on")
    given = parser.parse_args()
    depths = [int(part) for part in given.depths.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "f16.gguf"
        convert(DEMO / "model", model)
        corpus = load_corpus(sorted((DEMO / "calibration").glob("*.txt")))
        statistics = observe(model, corpus, ObserveOptions(reservoir=192))
        files = [(DEMO / "tasks" / "data" / f"{name}.jsonl", template) for name, template in TASKS.items()]
        with TaskFitness(model, files) as fitness:
            sizes = [len(scorer._items) for scorer in fitness._validation]
            table = Table(fitness, sizes, given.cache)
            table.measure("(whole model)", 0, [None])
            best, notes = fill(table, fitness, model, statistics, depths, given.eep_iterations, given.cache)
        with TaskFitness(model, files, use_mmap=False) as fitness:
            notes.append(merge_phase(table, fitness, best, max(depths), given.merge_iterations, given.cache))
        given.output.write_text(report(table, depths, notes, hash_file(model), sum(sizes), statistics.n_tokens))
    print(f"wrote {given.output}")


def fill(
    table: "Table",
    fitness: TaskFitness,
    model: Path,
    statistics: Any,
    depths: list[int],
    iterations: int,
    cache: Path | None,
) -> tuple[Candidate, list[str]]:
    n_layers, n_experts = fitness.n_layers, fitness.n_experts
    for depth in depths:
        budget = [n_experts - depth] * n_layers
        inputs = RankingInputs(n_layers, n_experts, statistics, None, model)
        for name in RANKINGS.names():
            rankings = [ranking_named(name, seed=seed) for seed in (SEEDS if name == "random" else (0,))]
            values = [ranking.saliency(inputs) for ranking in rankings]
            table.measure(name, depth, [allocation.make_plan(one, budget, method=name).kept for one in values])
        kept = naee(model, statistics.reservoir["inputs"], n_experts - depth, fitness.experts_per_token)
        table.measure("naee (exhaustive)", depth, [kept])
    depth = max(depths)
    options = EepOptions(iterations=iterations, offspring=10)
    found = search(
        n_experts, [n_experts - depth] * n_layers, fitness.train, options,
        cache=FitnessCache(cache, f"{fitness.identity} {depth}"), on_generation=lambda g: print(g, flush=True),
    )  # fmt: skip
    table.measure("eep (prune phase)", depth, [found.best])
    unseen = table.accuracy(table.answers["eep (prune phase)", depth])
    return found.best, [
        f"EEP, prune phase from random candidates only: {options.iterations} iterations of {options.offspring}",
        f"candidates, seed {options.seed}, {found.n_evaluated} evaluated; accuracy {found.fitness.accuracy:.3f} on the",
        f"search's own questions, {unseen:.3f} on unseen ones.",
    ]


def merge_phase(
    table: "Table", fitness: TaskFitness, best: Candidate, depth: int, iterations: int, cache: Path | None
) -> str:
    """Go on from the prune phase with matrices that mix dropped experts into kept ones, in the model in memory."""
    start = MergeArrays.of_plan(SurgeryPlan(n_experts=fitness.n_experts, kept=best))
    weights = WeightsInMemory(fitness.model, fitness.layers)
    slots = (tuple(range(len(best[0]))),) * fitness.n_layers

    def measure(matrices: MergeArrays) -> Fitness:
        weights.merge(matrices)
        return fitness.train(slots)

    options = MergeOptions(iterations=iterations, offspring=8)
    known = FitnessCache(cache.with_suffix(".merge") if cache else None, f"{fitness.identity} merge {best}")
    found = search_merge(start, measure, options, cache=known, on_generation=lambda g: print(g, flush=True))
    weights.merge(found.best)
    name = "eep (prune and merge)"
    table.answers[name, depth] = np.array(fitness.validation_answers(slots), float)
    unseen = table.accuracy(table.answers[name, depth])
    return (
        f"Merge phase from there: {options.iterations} iterations of {options.offspring} candidates; accuracy"
        f" {found.fitness.accuracy:.3f} on the search's\nown questions, {unseen:.3f} on unseen ones."
    )


def report(table: Table, depths: list[int], notes: list[str], model: str, n_questions: int, n_tokens: int) -> str:
    names = list(dict.fromkeys(name for name, _ in table.answers if not name.startswith("(")))
    whole = table.answers["(whole model)", 0]
    low, high = table.interval(whole)
    lines = [
        "# Methods x depth on the demo model",
        "",
        "Made by `python -m tests.bench.bench_methods`; do not edit by hand.",
        "",
        "Accuracy (mean of the three demo styles, zero-shot, length-normalised log-likelihood) on",
        f"{n_questions} questions that no search saw, with experts masked in the F16 model `{model[:16]}`;",
        f"statistics from {n_tokens} calibration tokens. Depth is the number of experts dropped in every layer of 16.",
        f"In brackets: 95 % bootstrap interval over questions. `random` is the mean of {len(SEEDS)} seeds.",
        f"The whole model: {table.accuracy(whole):.3f} [{low:.3f}, {high:.3f}].",
        "",
        "| method | " + " | ".join(f"{depth} dropped" for depth in depths) + " |",
        "|---|" + "---|" * len(depths),
    ]
    for name in names:
        cells = []
        for depth in depths:
            answers = table.answers.get((name, depth))
            if answers is None:
                cells.append("")
                continue
            low, high = table.interval(answers)
            cells.append(f"{table.accuracy(answers):.3f} [{low:.3f}, {high:.3f}]")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "Difference from `random`, paired by question (an interval over 0 distinguishes nothing):", ""]
    lines += ["| method | " + " | ".join(f"{depth} dropped" for depth in depths) + " |", "|---|" + "---|" * len(depths)]
    for name in names[1:]:
        cells = []
        for depth in depths:
            answers = table.answers.get((name, depth))
            if answers is None:
                cells.append("")
                continue
            difference = answers - table.answers["random", depth]
            low, high = table.interval(difference)
            cells.append(f"{table.accuracy(difference):+.3f} [{low:+.3f}, {high:+.3f}]")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *notes, "", f"Date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d}.", ""])


if __name__ == "__main__":
    main()
