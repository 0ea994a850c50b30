"""EEP's prune phase as a search: sets of kept experts, evolved by accuracy on questions.

With the operators that its authors released (`released`), or with those of a search of our own (`evolution`).
"""

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from shared.kernel.progress import Progress
from shared.wire.surgeon_catalogue import Need
from surgeon.search.base import Found, SearchInputs
from surgeon.search.by_accuracy import SearchByAccuracy, report
from surgeon.search.evolution import EepOptions, FitnessCache, Generation, search
from surgeon.search.evolution import Found as Evolved
from surgeon.search.released import ReleasedOptions, search_released

if TYPE_CHECKING:
    from surgeon.search.task_fitness import TaskFitness

_GENERATIONS = frozenset({"iterations", "offspring"})
_DEV_SHARE = 0.2
"""Of the training questions, with the released operators: they only decide among the best candidates."""


class Eep(SearchByAccuracy):
    """Evolve the sets of kept experts by accuracy on questions; reports the split that the search never sees."""

    name: ClassVar[str] = "eep"
    source: ClassVar[str] = "Liu et al., EEP, arXiv 2407.00945, prune phase"
    optional: ClassVar[tuple[Need, ...]] = ("start",)
    free: ClassVar[tuple[str, ...]] = ("candidates", "iterations", "offspring", "seed")

    operators: Literal["published", "own"] = Field(
        default="published", description="published: as its authors released them; own: generations with crossover"
    )
    candidates: int = Field(
        default=100, ge=2, le=1_000_000, description="evaluated in all, with the published operators; theirs are 100"
    )
    iterations: int = Field(default=40, ge=0, le=10_000, description="generations, with our own operators")
    offspring: int = Field(default=12, ge=1, le=1000, description="new candidates of a generation, with our own")

    @model_validator(mode="before")
    @classmethod
    def _generations_are_our_own(cls, data: Any) -> Any:
        """Take who says how many generations, as all did before there was a choice, as asking for our operators."""
        if isinstance(data, dict) and "operators" not in data and _GENERATIONS & data.keys():
            return {**data, "operators": "own"}
        return data

    @model_validator(mode="after")
    def _budget_is_of_the_operators(self) -> Self:
        others = _GENERATIONS if self.operators == "published" else {"candidates"}
        fields = type(self).model_fields
        if wrong := sorted(name for name in others if getattr(self, name) != fields[name].default):
            raise ValueError(f"{wrong[0]} is no budget of the {self.operators} operators")
        return self

    def run(self, inputs: SearchInputs, on_progress: Progress) -> Found:
        """Evolve, and measure the result on the questions that the search never saw."""
        from surgeon.search.task_fitness import TaskFitness

        dev_share = _DEV_SHARE if self.operators == "published" else 0.0
        with TaskFitness(
            inputs.model, inputs.questions, train_share=self.train_share, dev_share=dev_share, threads=inputs.threads
        ) as fitness:
            found = self._evolve(inputs, fitness, on_progress)
            train, validation = found.fitness.accuracy, fitness.validation(found.best).accuracy
            worth = report(train, validation, fitness.validation(None).accuracy, found.n_evaluated)
            parameters: dict[str, Any] = {
                "depth": inputs.drop, "operators": self.operators, "seed": self.seed, "evaluated": found.n_evaluated,
                "train_accuracy": train, "validation_accuracy": validation,
            }  # fmt: skip
            if self.operators == "own":
                parameters["iterations"] = self.iterations
            plan = inputs.plan_keeping(found.best, fitness.n_experts, "eep_prune", parameters)
        return Found(plan, worth)

    def _evolve(self, inputs: SearchInputs, fitness: "TaskFitness", on_progress: Progress) -> Evolved:
        keep = fitness.n_experts - inputs.drop
        counts, start = [keep] * fitness.n_layers, [plan.kept for plan in inputs.start]
        cache = FitnessCache(inputs.cache, f"{fitness.identity} {keep}")
        if self.operators == "own":
            own = EepOptions(iterations=self.iterations, offspring=self.offspring, seed=self.seed)
            return search(
                fitness.n_experts, counts, fitness.train, own, start=start, cache=cache,
                on_generation=lambda generation: self.on_generation(generation, on_progress),
            )  # fmt: skip

        def tell(generation: Generation) -> None:
            note = f"best {generation.best.accuracy:.3f} after {generation.n_evaluated}"
            on_progress(min(generation.n_evaluated / self.candidates, 1.0), note)

        return search_released(
            fitness.n_experts, counts, fitness.train, fitness.dev,
            ReleasedOptions(candidates=self.candidates, seed=self.seed), start=start, cache=cache, on_candidate=tell,
        )  # fmt: skip


SEARCH = Eep
