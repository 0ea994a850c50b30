"""What a kind of surgery is, and what it is told of a model.

A surgery is concrete: base and parameters alone determine the result. Which experts to keep, for example, was decided
before (`surgeon.planning`, `surgeon.search`). Not here: surgeries in order (`sequence`), and any kind.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

from shared.checkpoints import surgery
from shared.checkpoints.base import CheckpointInfo
from shared.kernel.progress import Progress, no_progress
from shared.kernel.records import Record
from surgeon.verification.comparison import Verification


class ModelFacts(CheckpointInfo):
    """A model before a surgery, and what is known of it after one that has not been done yet."""

    where: str
    selectable: int
    """Experts that the router can select in the poorest layer; fewer than `n_experts` after a biased plan."""
    biased: bool = False
    """What a biased plan makes, which is never cut again."""

    @classmethod
    def of(cls, model: Path) -> Self:
        """Return the facts of a model file.

        Raises:
            ConfigurationError: unknown format, dense or unsupported model.
            DataError: damaged file.
        """
        info = surgery.describe(model)
        return cls(**info.model_dump(), where=str(model), selectable=info.n_experts)


class Surgery(Record, ABC):
    """One surgery; its fields are its parameters.

    Attributes:
        kind: its name in a list of surgeries; also of the module or entry point that brings it.
        source: paper or definition.
        formats: model formats that it works on.
    """

    kind: ClassVar[str]
    source: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]

    @abstractmethod
    def check(self, model: ModelFacts) -> ModelFacts:
        """Return the facts of the result, before anything is read or written.

        Raises:
            ConfigurationError: this cannot be done to such a model; says what and why.
        """

    @abstractmethod
    def apply(self, base: Path, target: Path, on_progress: Progress = no_progress) -> None:
        """Write the result to `target`, whole or not at all.

        Raises:
            ConfigurationError: the parameters do not fit the model.
            DataError: the base is damaged.
            InfrastructureError: the disk is full or fails; nothing is left behind.
        """

    @abstractmethod
    def prove(self, base: Path, result: Path) -> Verification:
        """Compare `result` with what this makes of `base`, without the code that wrote it wherever that is possible.

        Raises:
            DataError: they differ; the first difference is named.
            ConfigurationError: the parameters do not fit the base.
        """
