"""EEP's merge phase as a search: from a plan, matrices that mix dropped experts into kept ones (`merge_evolution`)."""

from typing import ClassVar

from pydantic import Field

from shared.checkpoints import surgery
from shared.files.durability import hash_file
from shared.kernel.progress import Progress
from shared.wire.surgeon_catalogue import Need
from surgeon.kinds.merge_experts import MergeExperts
from surgeon.planning.merging import MergeArrays
from surgeon.search.base import Found, SearchInputs
from surgeon.search.by_accuracy import SearchByAccuracy, report
from surgeon.search.evolution import Fitness, FitnessCache


class EepMerge(SearchByAccuracy):
    """Evolve matrices that mix dropped experts into kept ones; the model must be F16 or F32, `apply` takes any."""

    name: ClassVar[str] = "eep_merge"
    source: ClassVar[str] = "Liu et al., EEP, arXiv 2407.00945, merge phase"
    needs: ClassVar[tuple[Need, ...]] = ("plan", "questions", "weights")

    iterations: int = Field(default=160, ge=0, le=10_000, description="generations; the paper has 160")
    offspring: int = Field(default=8, ge=1, le=1000, description="new candidates of a generation")

    def run(self, inputs: SearchInputs, on_progress: Progress) -> Found:
        """Evolve from the plan, and measure the result on the questions that the search never saw.

        Raises:
            ConfigurationError: a plan for another model, or quantised weights.
        """
        from surgeon.search.merge_evolution import MergeOptions, WeightsInMemory, search_merge
        from surgeon.search.task_fitness import TaskFitness

        plan = inputs.begun_with
        surgery.recipe(inputs.model, plan)
        start = MergeArrays.of_plan(plan)
        options = MergeOptions(iterations=self.iterations, offspring=self.offspring, seed=self.seed)
        with TaskFitness(
            inputs.model, inputs.questions, train_share=self.train_share, threads=inputs.threads, use_mmap=False
        ) as fitness:
            weights = WeightsInMemory(fitness.model, fitness.layers)
            slots = (tuple(range(len(plan.kept[0]))),) * fitness.n_layers

            def measure(matrices: MergeArrays) -> Fitness:
                weights.merge(matrices)
                return fitness.train(slots)

            found = search_merge(
                start, measure, options,
                cache=FitnessCache(inputs.cache, f"{fitness.identity} merge {plan.plan_hash()}"),
                on_generation=lambda generation: self.on_generation(generation, on_progress),
            )  # fmt: skip
            weights.merge(start)
            before = fitness.validation(slots).accuracy
            weights.merge(found.best)
            train, validation = found.fitness.accuracy, fitness.validation(slots).accuracy
        parameters = {**plan.parameters, "merge_iterations": self.iterations, "merge_seed": self.seed,
                      "train_accuracy": train, "validation_accuracy": validation}  # fmt: skip
        provenance = {"method": "eep_prune_and_merge", "parameters": parameters,
                      "base_sha256": hash_file(inputs.model),
                      "router_sha256": surgery.router_sha256(inputs.model)}  # fmt: skip
        merged = MergeExperts(matrices=found.best.record()).onto(plan.model_copy(update=provenance))
        return Found(merged, report(train, validation, before, found.generations[-1].n_evaluated))


SEARCH = EepMerge
