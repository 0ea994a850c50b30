"""EEP: an evolutionary search for the experts to keep, by accuracy on a task; gradient-free.

After Liu et al., "Efficient Expert Pruning for Sparse MoE Language Models", arXiv 2407.00945, prune phase: candidates
are one set of experts a layer. This is a search of our own with the paper's rates: crossover 0.3 (each layer comes from
the second parent with that chance), row replacement 0.15 (each kept expert is replaced by a dropped one as often),
parents within 3 points of the best; generations of several children, and a population that is cut to its best. The
operators as the authors released them are in `released`; the merge phase is `merge_evolution`.

The fitness never writes a file: experts are masked in the running engine. It is measured on a training split; the
validation split is only ever looked at to report, so that over-fitting to the search set shows.

A run with one seed is reproducible. Every fitness is kept in a file, and a killed run started again replays what it
knows and goes on.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from shared.files.kept_lines import KeptLines
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.records import Record

Candidate = tuple[tuple[int, ...], ...]
"""[layer][rank] ascending ids of the kept experts."""


class Fitness(Record):
    """Accuracy first; among equal accuracies the margin decides."""

    accuracy: float
    margin: float

    @property
    def order(self) -> tuple[float, float]:
        """What candidates are sorted by, the best highest."""
        return self.accuracy, self.margin


@dataclass(frozen=True)
class EepOptions:
    """The operators."""

    iterations: int = 40
    offspring: int = 12
    """New candidates an iteration."""
    crossover: float = 0.3
    replacement: float = 0.15
    parent_margin: float = 0.03
    """Parents are candidates whose accuracy is at most so much below the best."""
    most_parents: int = 16
    seed: int = 0


class Generation(Record):
    """What one iteration found."""

    iteration: int
    n_evaluated: int
    best: Fitness


class FitnessCache:
    """Fitness by candidate, appended to a file of JSON lines."""

    def __init__(self, path: Path | None, identity: str) -> None:
        """Read what is known.

        Args:
            path: the file, None to remember nothing.
            identity: names model, questions and split; a file of another search is refused.

        Raises:
            ConfigurationError: the file belongs to another search.
            DataError: a damaged line that is not the last (a killed run may leave half a line at the end).
        """
        self._known: dict[str, Fitness] = {}
        self._file = None if path is None else KeptLines(path, identity)
        if self._file is None:
            return
        if self._file.identity != identity:
            raise ConfigurationError("the file of known candidates belongs to another search", where=str(path))
        for number, line in enumerate(self._file.lines, start=2):
            try:
                entry: dict[str, Any] = json.loads(line)
                self._known[entry["key"]] = Fitness(accuracy=entry["accuracy"], margin=entry["margin"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError("a damaged line", where=f"{path}:{number}") from error

    def get(self, key: str) -> Fitness | None:
        """Return a known fitness."""
        return self._known.get(key)

    def put(self, key: str, fitness: Fitness) -> None:
        """Remember a fitness."""
        self._known[key] = fitness
        if self._file is not None:
            self._file.append([json.dumps({"key": key, "accuracy": fitness.accuracy, "margin": fitness.margin})])


@dataclass(frozen=True)
class Found:
    """The result of a search."""

    best: Candidate
    fitness: Fitness
    generations: tuple[Generation, ...]
    n_evaluated: int


def search(
    n_experts: int,
    keep: Iterable[int],
    fitness: Callable[[Candidate], Fitness],
    options: EepOptions,
    *,
    start: Iterable[Candidate] = (),
    cache: FitnessCache | None = None,
    on_generation: Callable[[Generation], None] | None = None,
) -> Found:
    """Run the prune phase.

    Args:
        n_experts: experts in each layer.
        keep: how many each layer keeps.
        fitness: measures a candidate on the training split.
        options: the operators.
        start: candidates to begin with beside random ones, for example those of rankings.
        cache: known fitnesses.
        on_generation: called after each iteration.

    Raises:
        ConfigurationError: an impossible number to keep.
    """
    counts = tuple(keep)
    if not counts or any(not 1 <= count <= n_experts for count in counts):
        raise ConfigurationError(f"cannot keep {counts} of {n_experts} experts")
    run = _Run(n_experts, counts, fitness, options, cache or FitnessCache(None, ""))
    run.begin(list(start))
    generations: list[Generation] = []
    for iteration in range(options.iterations + 1):
        if iteration:
            run.step()
        best = run.ranked()[0][1]
        generations.append(Generation(iteration=iteration, n_evaluated=run.n_evaluated, best=best))
        if on_generation is not None:
            on_generation(generations[-1])
    winner, value = run.ranked()[0]
    return Found(winner, value, tuple(generations), run.n_evaluated)


class _Run:
    def __init__(
        self,
        n_experts: int,
        counts: tuple[int, ...],
        fitness: Callable[[Candidate], Fitness],
        options: EepOptions,
        cache: FitnessCache,
    ) -> None:
        self._n_experts, self._counts, self._fitness, self._options = n_experts, counts, fitness, options
        self._cache = cache
        self._random = np.random.default_rng(options.seed)
        self._population: dict[Candidate, Fitness] = {}
        self.n_evaluated = 0

    def begin(self, start: list[Candidate]) -> None:
        for candidate in start:
            if tuple(map(len, candidate)) != self._counts:
                raise ConfigurationError("a starting candidate keeps another number of experts")
            self._add(candidate)
        for _ in range(self._options.offspring):
            self._add(tuple(self._draw(count) for count in self._counts))

    def _draw(self, count: int) -> tuple[int, ...]:
        return tuple(sorted(self._random.choice(self._n_experts, count, replace=False).tolist()))

    def _add(self, candidate: Candidate) -> None:
        if candidate in self._population:
            return
        key = json.dumps(candidate)
        known = self._cache.get(key)
        if known is None:
            known = self._fitness(candidate)
            self._cache.put(key, known)
        self.n_evaluated += 1
        self._population[candidate] = known

    def ranked(self) -> list[tuple[Candidate, Fitness]]:
        """Return candidates, the best first; equal ones in a fixed order, so that a run is reproducible."""
        return sorted(self._population.items(), key=lambda item: (-item[1].accuracy, -item[1].margin, item[0]))

    def step(self) -> None:
        """Make offspring of the good ones."""
        ranked = self.ranked()
        least = ranked[0][1].accuracy - self._options.parent_margin
        parents = [candidate for candidate, value in ranked if value.accuracy >= least][: self._options.most_parents]
        for _ in range(self._options.offspring):
            first = parents[int(self._random.integers(len(parents)))]
            second = parents[int(self._random.integers(len(parents)))]
            take = self._random.random(len(self._counts)) < self._options.crossover
            mixed = [b if other else a for a, b, other in zip(first, second, take, strict=True)]
            self._add(tuple(self._mutated(row) for row in mixed))
        keep = [candidate for candidate, _ in self.ranked()[: 4 * self._options.most_parents]]
        self._population = {candidate: self._population[candidate] for candidate in keep}

    def _mutated(self, row: tuple[int, ...]) -> tuple[int, ...]:
        outside = [expert for expert in range(self._n_experts) if expert not in row]
        result = list(row)
        for place in range(len(result)):
            if outside and self._random.random() < self._options.replacement:
                other = int(self._random.integers(len(outside)))
                result[place], outside[other] = outside[other], result[place]
        return tuple(sorted(result))


_SPLIT_SEED: Final = 20240901


def split(n_questions: int, train_share: float = 0.5) -> tuple[list[int], list[int]]:
    """Return numbers of the training and the validation questions; the same for every search.

    Raises:
        ConfigurationError: a part would be empty.
    """
    order = np.random.default_rng(_SPLIT_SEED).permutation(n_questions).tolist()
    cut = round(n_questions * train_share)
    if not 0 < cut < n_questions:
        raise ConfigurationError(f"{n_questions} questions cannot be split by {train_share}")
    return sorted(order[:cut]), sorted(order[cut:])


def split_dev(train: list[int], dev_share: float) -> tuple[list[int], list[int]]:
    """Return what is left of the training questions, and the part of them that decides among the best candidates.

    Raises:
        ConfigurationError: a part would be empty.
    """
    if not dev_share:
        return train, []
    order = np.random.default_rng(_SPLIT_SEED + 1).permutation(train).tolist()
    cut = round(len(train) * dev_share)
    if not 0 < cut < len(train):
        raise ConfigurationError(f"{len(train)} training questions cannot be split by {dev_share} once more")
    return sorted(order[cut:]), sorted(order[:cut])
