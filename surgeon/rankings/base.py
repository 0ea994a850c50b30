"""What a ranking is given and what it returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shared.kernel.errors import ConfigurationError
from surgeon.observation.statistics import Statistics

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RankingInputs:
    """Everything a method may look at."""

    n_layers: int
    n_experts: int
    statistics: Statistics | None = None
    domain_weights: Mapping[str, float] | None = None
    """Blend: each domain counts per token times its weight; None: every token counts once."""
    model_path: Path | None = None
    seed: int = 0
    experts_per_token: int = 1
    router_sha256: str | None = None
    """Of the model: what a plan's expert ids mean (`SurgeryPlan.router_sha256`)."""

    def total(self, statistic: str) -> npt.NDArray[Any]:
        """Return a blended statistic [layer, expert].

        Raises:
            ConfigurationError: there are no statistics, or not this one.
        """
        if self.statistics is None:
            raise ConfigurationError("this method needs expert statistics", hint="run `epi surgery observe` first")
        return self.statistics.total(statistic, self.domain_weights)


class Ranking(Protocol):
    """One method."""

    name: str
    source: str
    """Paper or definition the formula is from."""
    needs: str
    """'statistics', 'weights' or 'nothing'."""

    def saliency(self, inputs: RankingInputs) -> Array:
        """Return how much each expert matters, [layer, expert]; within a layer the lowest are dropped first."""
        ...
