"""May a running campaign stop? One interim analysis of its statistics, by the rule that was fixed before it started."""

from collections.abc import Collection

import numpy as np
from pydantic import Field

from orchestrator.domain.analysis.statistics import CampaignStatistics
from orchestrator.domain.arrays import Floats
from orchestrator.domain.campaign.sequential import StoppingRule, decide
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import ConfigurationId, Record


class InterimAnalysis(Record):
    """What an interim analysis says: stop or go on, and what is established at its stricter level."""

    repetitions_done: int
    repetitions_planned: int
    stop: bool
    reason: str
    established: tuple[ConfigurationId, ...] = Field(description="variants whose EPI differs from their baseline's")

    def sentence(self) -> str:
        """Say it in words."""
        named = ", ".join(self.established) or "no difference"
        return (
            f"interim analysis after {self.repetitions_done} of {self.repetitions_planned} repetitions:"
            f" {self.reason}; established: {named}"
        )


def planned_rule(repetitions: int, target_half_width: float | None = None) -> StoppingRule:
    """Return the rule of a campaign that may be analysed after each repetition from the second on.

    Raises:
        ConfigurationError: fewer than two repetitions show no spread.
    """
    if repetitions < 2:
        raise ConfigurationError("one repetition shows no spread: there is nothing to analyse", where="repetitions")
    information = tuple(k / repetitions for k in range(2, repetitions + 1))
    return StoppingRule(information=information, target_half_width=target_half_width)


def analyse_interim(
    statistics: CampaignStatistics,
    repetitions_planned: int,
    target_half_width: float | None = None,
    earlier: Collection[ConfigurationId] = (),
) -> InterimAnalysis:
    """Analyse the repetitions that every compared configuration has; what `earlier` ones established stays so.

    Raises:
        ConfigurationError: fewer than two repetitions are planned.
    """
    rule = planned_rule(repetitions_planned, target_half_width)
    data, terms = statistics.data, statistics.terms
    if data is None or terms is None:
        return _not_yet(0, repetitions_planned)
    rows = np.flatnonzero(data.reference != np.arange(data.reference.size))
    done = _complete_repetitions(data.log_j) if rows.size else 0
    if done < 2 or not np.isfinite(terms.variance[rows]).all():
        return _not_yet(done, repetitions_planned)
    low, high = terms.interval()
    analysis = min(done, repetitions_planned) - 2
    names = [data.configurations[row].id for row in rows.tolist()]
    half_widths = ((high - low)[rows] / 2).tolist()
    known = [name in earlier for name in names]
    found = decide(terms.p_values()[rows].tolist(), half_widths, analysis, rule, known)
    return InterimAnalysis(
        repetitions_done=done,
        repetitions_planned=repetitions_planned,
        stop=found.stop,
        reason=found.reason,
        established=tuple(name for name, named in zip(names, found.named, strict=True) if named),
    )


def _complete_repetitions(log_j: Floats) -> int:
    return int((~np.isnan(log_j)).all(0).sum())


def _not_yet(done: int, planned: int) -> InterimAnalysis:
    return InterimAnalysis(
        repetitions_done=done, repetitions_planned=planned, stop=False, established=(),
        reason="go on: two repetitions of every configuration are needed before the first interim analysis",
    )  # fmt: skip
