"""The interim analyses that a spec plans: after each repetition from the second on, may the campaign stop?

Each is made once and journaled; after a restart the journal's answer stands, so that none is made twice. What one
calculates is in `orchestrator.domain.analysis.interim`.
"""

import asyncio
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from orchestrator.domain.analysis.interim import InterimAnalysis, analyse_interim
from orchestrator.domain.campaign.schedule import PlannedRun
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.results.read_model import load_results
from orchestrator.store.journal import Journal

INTERIM_STEP = "interim_analysis"
_FIRST_ANALYSIS_AFTER = 2


class InterimAnalyses:
    """The interim analyses of one campaign; none without `interim_analyses` in its spec."""

    def __init__(self, journal: Journal, spec: CampaignSpec, folder: Path) -> None:
        self._journal = journal
        self._spec = spec
        self._folder = folder
        self.taken: tuple[InterimAnalysis, ...] = ()

    def blocks(self, order: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
        """Return the runs between two analyses: one repetition each, or all of them where none is planned."""
        if self._spec.interim_analyses is None:
            return [list(order)]
        return [list(runs) for _, runs in groupby(order, key=lambda planned: planned.repetition)]

    async def take(self, repetition: int) -> bool:
        """Analyse after a repetition, if that is planned; true when the campaign may stop.

        Raises:
            DataError: a result file is damaged.
        """
        planned = self._spec.interim_analyses
        if planned is None or repetition < _FIRST_ANALYSIS_AFTER:
            return False
        run = f"rep-{repetition}"
        known = await self._journal.last_result(self._spec.id, run, INTERIM_STEP)
        if known is None:
            analysis = await asyncio.to_thread(self._analyse, repetition, planned.precision)
            await self._journal.append(
                self._spec.id, kind="result", run=run, step=INTERIM_STEP, payload=analysis.model_dump(mode="json")
            )
        else:
            analysis = InterimAnalysis.model_validate(known)
        self.taken = (*self.taken, analysis)
        return analysis.stop

    def _analyse(self, repetition: int, precision: float | None) -> InterimAnalysis:
        earlier = self.taken[-1].established if self.taken else ()
        statistics = load_results(self._folder).statistics
        analysis = analyse_interim(statistics, self._spec.repetitions, precision, earlier)
        if analysis.repetitions_done == repetition:
            return analysis
        return analysis.model_copy(
            update={
                "stop": False, "established": earlier,
                "reason": f"go on: repetition {repetition} is not whole in every compared configuration",
            }
        )  # fmt: skip
