"""What EEP's two phases have in common: parameters, inputs, and the report of a search by accuracy on questions."""

from typing import Any, ClassVar

from pydantic import Field

from shared.kernel.progress import Progress
from shared.wire.surgeon_catalogue import Need
from surgeon.search.base import Search
from surgeon.search.evolution import Generation


class SearchByAccuracy(Search):
    """Evolves candidates by accuracy on one part of the questions, and is judged on the other."""

    needs: ClassVar[tuple[Need, ...]] = ("questions",)
    free: ClassVar[tuple[str, ...]] = ("iterations", "offspring", "seed")

    train_share: float = Field(default=0.5, gt=0, lt=1, description="share of the questions the search may see")
    iterations: int = Field(default=40, ge=0, le=10_000, description="generations")
    offspring: int = Field(default=12, ge=1, le=1000, description="new candidates of a generation")
    seed: int = Field(default=0, description="one seed, one result")

    def on_generation(self, generation: Generation, on_progress: Progress) -> None:
        """Tell how far the search is."""
        note = f"best {generation.best.accuracy:.3f} after {generation.n_evaluated}"
        on_progress((generation.iteration + 1) / (self.iterations + 1), note)


def report(train: float, validation: float, of_base: float, evaluated: int) -> dict[str, Any]:
    """Return what is known of a result: accuracy on the questions the search used, and on those it never saw.

    `of_base` is what the result is compared with: the whole model, or the plan that a merge phase began with.
    """
    return {
        "train_accuracy": train, "validation_accuracy": validation, "validation_accuracy_of_base": of_base,
        "evaluated": evaluated,
    }  # fmt: skip
