"""EEP's merge phase: from the experts that the prune phase kept, evolve matrices that mix in the dropped ones.

Liu et al., arXiv 2407.00945; defaults are the published operators: Gaussian noise of 0.065 on a quarter of the entries,
crossover 0.3 by layer, parents within 3 points of the best, 160 iterations.

Candidates are evaluated without writing files: the running model's expert weights are overwritten in memory, so the
model is loaded without mmap, and its experts are held a second time.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.kernel.errors import ConfigurationError
from shared.llama import model as llama
from surgeon.planning.merging import MergeArrays, merge_rows
from surgeon.search.evolution import Fitness, FitnessCache, Generation

Array = npt.NDArray[Any]
_EXPERT_NODES: Final = ("ffn_moe_gate", "ffn_moe_up", "ffn_moe_down")
_MATRIX: Final = re.compile(r"blk\.\d+\.ffn_(?:(?:gate|up|down)_exps|gate_inp)\.weight")
_MORE: Final = re.compile(r"ffn_moe_(?:(?:gate|up|down)_(?:scaled|biased)|logits_biased|probs_biased|gate_up)\b")


@dataclass(frozen=True)
class MergeOptions:
    """The operators."""

    iterations: int = 160
    offspring: int = 8
    crossover: float = 0.3
    sigma: float = 0.065
    mutated: float = 0.25
    parent_margin: float = 0.03
    most_parents: int = 8
    seed: int = 0


class WeightsInMemory:
    """The expert and router weights of a loaded model, found through the graph, and their originals."""

    def __init__(self, model: llama.Model, layers: Sequence[int]) -> None:
        """Find the weights by evaluating one token.

        Args:
            model: loaded into memory that may be written to.
            layers: numbers of the layers with experts.

        Raises:
            ConfigurationError: quantised weights, which cannot be mixed, or experts with more than their matrices.
        """
        found: dict[tuple[str, int], llama.Tensor] = {}
        wanted = {f"{node}-{layer}".encode(): (node, row) for row, layer in enumerate(layers)
                  for node in (*_EXPERT_NODES, "ffn_moe_logits")}  # fmt: skip
        odd: list[str] = []

        def look(tensor: llama.Tensor, ask: bool) -> bool:
            place = wanted.get(tensor.raw_name)
            if place is not None and ask:
                weights = tensor.source(0)
                if _MATRIX.fullmatch(weights.name):  # where gate and up are one, the node is a part of their product
                    found[place] = weights
            elif ask and _MORE.match(tensor.name):
                odd.append(tensor.name)
            return not ask

        with llama.Context(model, context_tokens=32, batch_tokens=32, on_tensor=look) as context:
            context.decode([0], [0])
        if odd or set(found) != set(wanted.values()):
            what = f"they have more than gate, up and down ({odd[0]})" if odd else "their weights are not in the graph"
            raise ConfigurationError(f"the experts cannot be merged in memory: {what}", where=str(model.path))
        self._tensors = found
        self._originals: dict[tuple[str, int], Array] = {}
        for place, tensor in found.items():
            values = tensor.read()
            if values.dtype not in (np.float16, np.float32):
                raise ConfigurationError("merging needs an F16 or F32 model", where=tensor.name)
            self._originals[place] = values

    def merge(self, matrices: MergeArrays) -> None:
        """Put the merged experts into the first slots of every layer; the other slots keep what they had."""
        for (node, layer), original in self._originals.items():
            matrix = (matrices.experts if node in _EXPERT_NODES else matrices.routers)[layer]
            values = original.copy()
            values[: len(matrix)] = merge_rows(matrix, original).astype(original.dtype)
            self._tensors[node, layer].write(values)


@dataclass(frozen=True)
class Merged:
    """The result of a search."""

    best: MergeArrays
    fitness: Fitness
    generations: tuple[Generation, ...]


def search_merge(
    start: MergeArrays,
    fitness: Callable[[MergeArrays], Fitness],
    options: MergeOptions,
    *,
    cache: FitnessCache | None = None,
    on_generation: Callable[[Generation], None] | None = None,
) -> Merged:
    """Run the merge phase from one-hot matrices; reproducible by its seed, resumable by its cache."""
    random = np.random.default_rng(options.seed)
    known = cache or FitnessCache(None, "")
    population: list[tuple[Fitness, int, MergeArrays]] = []
    n_evaluated = 0

    def add(matrices: MergeArrays) -> None:
        nonlocal n_evaluated
        key = hashlib.sha256(matrices.experts.tobytes() + matrices.routers.tobytes()).hexdigest()
        value = known.get(key)
        if value is None:
            value = fitness(matrices)
            known.put(key, value)
        population.append((value, n_evaluated, matrices))
        n_evaluated += 1

    def noisy(matrix: Array) -> Array:
        noise = random.normal(0.0, options.sigma, matrix.shape)
        return np.asarray(matrix + noise * (random.random(matrix.shape) < options.mutated))

    add(start)
    generations: list[Generation] = []
    for iteration in range(options.iterations + 1):
        if iteration:
            least = population[0][0].accuracy - options.parent_margin
            parents = [entry[2] for entry in population if entry[0].accuracy >= least][: options.most_parents]
            for _ in range(options.offspring):
                first, second = (parents[int(random.integers(len(parents)))] for _ in range(2))
                take = (random.random(len(first.experts)) < options.crossover)[:, None, None]
                add(
                    MergeArrays(
                        noisy(np.where(take, second.experts, first.experts)),
                        noisy(np.where(take, second.routers, first.routers)),
                    )
                )
        population.sort(key=lambda entry: (-entry[0].accuracy, -entry[0].margin, entry[1]))
        del population[4 * options.most_parents :]
        generations.append(Generation(iteration=iteration, n_evaluated=n_evaluated, best=population[0][0]))
        if on_generation is not None:
            on_generation(generations[-1])
    return Merged(population[0][2], population[0][0], tuple(generations))
