"""EEP's prune phase as a search: sets of kept experts, evolved (`evolution`) by accuracy on questions."""

from typing import ClassVar

from shared.kernel.progress import Progress
from shared.wire.surgeon_catalogue import Need
from surgeon.search.base import Found, SearchInputs
from surgeon.search.by_accuracy import SearchByAccuracy, report
from surgeon.search.evolution import EepOptions, FitnessCache, search


class Eep(SearchByAccuracy):
    """Evolve the sets of kept experts by accuracy on questions; reports the split that the search never sees."""

    name: ClassVar[str] = "eep"
    source: ClassVar[str] = "Liu et al., EEP, arXiv 2407.00945, prune phase"
    optional: ClassVar[tuple[Need, ...]] = ("start",)

    def run(self, inputs: SearchInputs, on_progress: Progress) -> Found:
        """Evolve, and measure the result on the questions that the search never saw."""
        from surgeon.search.task_fitness import TaskFitness

        options = EepOptions(iterations=self.iterations, offspring=self.offspring, seed=self.seed)
        with TaskFitness(
            inputs.model, inputs.questions, train_share=self.train_share, threads=inputs.threads
        ) as fitness:
            keep = fitness.n_experts - inputs.drop
            found = search(
                fitness.n_experts, [keep] * fitness.n_layers, fitness.train, options,
                start=[plan.kept for plan in inputs.start],
                cache=FitnessCache(inputs.cache, f"{fitness.identity} {keep}"),
                on_generation=lambda generation: self.on_generation(generation, on_progress),
            )  # fmt: skip
            train, validation = found.fitness.accuracy, fitness.validation(found.best).accuracy
            worth = report(train, validation, fitness.validation(None).accuracy, found.n_evaluated)
            plan = inputs.plan_keeping(
                found.best, fitness.n_experts, "eep_prune",
                {"depth": inputs.drop, "iterations": self.iterations, "seed": self.seed,
                 "train_accuracy": train, "validation_accuracy": validation},
            )  # fmt: skip
        return Found(plan, worth)


SEARCH = Eep
