"""What a ranking is, what it is given and what it returns."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from shared.kernel.errors import ConfigurationError
from shared.kernel.records import Record
from surgeon.observation.statistics import Statistics

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ExpertGroups:
    """Experts in groups of neighbours; a token chooses `used` of `count` groups, then its experts within them."""

    count: int
    used: int

    def of(self, expert: int, n_experts: int) -> int:
        """Return the group of an expert."""
        return expert // (n_experts // self.count)

    def fewest(self, experts_per_token: int) -> int:
        """Return how many experts each group must keep: the engine rates it by two, and the used ones must hold K."""
        return max(2, -(-experts_per_token // self.used))


@dataclass(frozen=True)
class RankingInputs:
    """Everything a method may look at."""

    n_layers: int
    n_experts: int
    statistics: Statistics | None = None
    domain_weights: Mapping[str, float] | None = None
    """Blend: each domain counts per token times its weight; None: every token counts once."""
    model_path: Path | None = None
    experts_per_token: int = 1
    router_sha256: str | None = None
    """Of the model: what a plan's expert ids mean (`SurgeryPlan.router_sha256`)."""
    groups: ExpertGroups | None = None
    """Where a token chooses groups of experts first."""

    def total(self, statistic: str) -> npt.NDArray[Any]:
        """Return a blended statistic [layer, expert].

        Raises:
            ConfigurationError: there are no statistics, or not this one.
        """
        if self.statistics is None:
            raise ConfigurationError("this method needs expert statistics", hint="run `epi surgery observe` first")
        return self.statistics.total(statistic, self.domain_weights)


class Ranking(Record, ABC):
    """One method; its fields are its parameters, which a plan made by it carries.

    Attributes:
        name: as specs and plans have it; also the name of the module or entry point that brings it.
        source: paper or definition the formula is from.
        statistics: which expert statistics it reads (`surgeon.observation.statistics`).
        weight_formats: of which model formats it reads the weights; none for a method that reads no weights.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    statistics: ClassVar[tuple[str, ...]] = ()
    weight_formats: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def saliency(self, inputs: RankingInputs) -> Array:
        """Return how much each expert matters, [layer, expert]; within a layer the lowest are dropped first."""
