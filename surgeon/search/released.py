"""EEP's prune phase with the operators of its released code (imagination-research/EEP, configs/search/search.yml).

What the paper leaves open the code decides, and this follows it. Budgets count evaluated candidates, not generations:
100. About thirty random candidates come first (the code stops after the 31st). Then each candidate is a mutated copy of
one parent, never a mixture: crossover only happens in the merge phase. A parent is drawn evenly from all candidates so
far whose accuracy is at most 3 percentage points below the best, and the one after them (as `randint(0, i)` does). Of
its layers each changes with a chance of 0.25, at least one; in a layer that changes each kept expert is replaced with a
chance of 0.15 by one that is not kept. At the end the best 20 are measured on a dev split, and the best of them there
is the result. Equal accuracies are in random order.

One thing is ours: every random number comes from one seed, and a killed search replays what it knows.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from shared.kernel.errors import ConfigurationError
from surgeon.search.evolution import Candidate, Fitness, FitnessCache, Found, Generation


@dataclass(frozen=True)
class ReleasedOptions:
    """The operators, as released."""

    candidates: int = 100
    """Evaluated in all, the first ones included."""
    first: int = 31
    layer_change: float = 0.25
    replacement: float = 0.15
    parent_margin: float = 0.03
    finalists: int = 20
    seed: int = 0


def search_released(
    n_experts: int,
    keep: Iterable[int],
    fitness: Callable[[Candidate], Fitness],
    dev: Callable[[Candidate], Fitness],
    options: ReleasedOptions,
    *,
    start: Iterable[Candidate] = (),
    cache: FitnessCache | None = None,
    on_candidate: Callable[[Generation], None] | None = None,
) -> Found:
    """Run the prune phase; `fitness` measures on the training split, `dev` on the split that decides among the best.

    Raises:
        ConfigurationError: an impossible number to keep, or a starting candidate that keeps another number.
    """
    counts = tuple(keep)
    if not counts or any(not 1 <= count <= n_experts for count in counts):
        raise ConfigurationError(f"cannot keep {counts} of {n_experts} experts")
    random, known = np.random.default_rng(options.seed), cache or FitnessCache(None, "")
    population: list[tuple[Candidate, Fitness]] = []
    told: list[Generation] = []

    def add(candidate: Candidate) -> None:
        value = known.get(key := json.dumps(candidate))
        if value is None:
            value = fitness(candidate)
            known.put(key, value)
        population.append((candidate, value))
        best = max((one for _, one in population), key=lambda one: one.accuracy)
        told.append(Generation(iteration=len(population), n_evaluated=len(population), best=best))
        if on_candidate is not None:
            on_candidate(told[-1])

    for candidate in start:
        if tuple(map(len, candidate)) != counts:
            raise ConfigurationError("a starting candidate keeps another number of experts")
        add(candidate)
    while len(population) < min(options.first, options.candidates):
        add(tuple(_sorted(random.choice(n_experts, count, replace=False)) for count in counts))
    while len(population) < options.candidates:
        add(mutated(parent_of(_ranked(population, random), options, random), n_experts, options, random))
    finalists = _ranked(population, random)[: options.finalists]
    winner, value = max(finalists, key=lambda entry: dev(entry[0]).accuracy)
    return Found(winner, value, tuple(told), len(population))


def mutated(
    parent: Candidate, n_experts: int, options: ReleasedOptions, random: np.random.Generator
) -> Candidate:  # fmt: skip
    """Return a copy of `parent` in which some layers changed, at least one; a layer may come out as it was."""
    while True:
        changes = random.random(len(parent)) < options.layer_change
        if changes.any():
            break
    return tuple(
        _replaced(row, n_experts, options.replacement, random) if change else row
        for row, change in zip(parent, changes, strict=True)
    )


def _replaced(row: tuple[int, ...], n_experts: int, chance: float, random: np.random.Generator) -> tuple[int, ...]:
    """Replace kept experts one after the other; what is not kept at that moment may come, the old one too."""
    kept = list(row)
    for place in range(len(kept)):
        if random.random() < chance:
            others = {*kept[:place], *kept[place + 1 :]}
            free = [expert for expert in range(n_experts) if expert not in others]
            kept[place] = free[int(random.integers(len(free)))]
    return _sorted(np.asarray(kept))


def parent_of(
    ranked: list[tuple[Candidate, Fitness]], options: ReleasedOptions, random: np.random.Generator
) -> Candidate:  # fmt: skip
    """Return a candidate to copy: any that is near the best, or the one after those, each as often."""
    least = ranked[0][1].accuracy - options.parent_margin
    near = sum(value.accuracy >= least for _, value in ranked)
    return ranked[int(random.integers(min(near + 1, len(ranked))))][0]


def _ranked(
    population: list[tuple[Candidate, Fitness]], random: np.random.Generator
) -> list[tuple[Candidate, Fitness]]:  # fmt: skip
    """Return all candidates, the best first, equal ones in random order."""
    order = random.permutation(len(population))
    return sorted((population[at] for at in order), key=lambda entry: -entry[1].accuracy)


def _sorted(experts: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]") -> tuple[int, ...]:
    return tuple(sorted(int(expert) for expert in experts))
