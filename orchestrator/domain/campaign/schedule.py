"""Which runs a campaign has, and their order.

Repetitions are interleaved, every second one backwards (ABBA), so that slow drifts cancel.
"""

from dataclasses import dataclass
from functools import lru_cache

from orchestrator.domain.campaign.matrix import parse_selection
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.serving import MatrixOptions
from orchestrator.domain.campaign.spec import CampaignSpec
from shared.kernel.records import Configuration


@dataclass(frozen=True)
class PlannedRun:
    """One run (configuration x repetition) of the schedule."""

    configuration: Configuration
    repetition: int

    @property
    def run(self) -> RunReference:
        """Which run it is."""
        return RunReference(configuration=self.configuration.id, repetition=self.repetition)


def schedule(spec: CampaignSpec) -> list[PlannedRun]:
    """Return every run of a campaign in the order in which it is measured."""
    configurations = configurations_of(spec)
    runs: list[PlannedRun] = []
    for repetition in range(1, spec.repetitions + 1):
        ordered = configurations if repetition % 2 else tuple(reversed(configurations))
        runs += [PlannedRun(configuration, repetition) for configuration in ordered]
    return runs


def configurations_of(spec: CampaignSpec) -> tuple[Configuration, ...]:
    """Return the matrix of a campaign.

    Raises:
        ConfigurationError: an id that the matrix does not hold.
    """
    return _matrix(spec.selection, spec.usual().model_dump_json())


@lru_cache(maxsize=256)
def _matrix(selection: str, usual: str) -> tuple[Configuration, ...]:
    """Parse once what lists of campaigns ask for again and again; the records are frozen."""
    return parse_selection(selection, MatrixOptions.model_validate_json(usual))


def runs_total(spec: CampaignSpec) -> int:
    """Return how many runs the campaign has."""
    return len(configurations_of(spec)) * spec.repetitions
