"""The looks that a spec plans: after each repetition from the second on, may the campaign stop?

A look is taken once and journaled; after a restart the journal's answer stands, so that nobody looks twice. What a look
calculates is in `orchestrator.domain.analysis.interim`.
"""

import asyncio
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from orchestrator.domain.analysis.interim import CampaignLook, look_at
from orchestrator.domain.campaign.schedule import PlannedRun
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.results.read_model import load_results
from orchestrator.store.journal import Journal

LOOK_STEP = "look"
_FIRST_LOOK_AFTER = 2


class PlannedLooks:
    """The looks of one campaign; none without `looks` in its spec."""

    def __init__(self, journal: Journal, spec: CampaignSpec, folder: Path) -> None:
        self._journal = journal
        self._spec = spec
        self._folder = folder
        self.taken: tuple[CampaignLook, ...] = ()

    def blocks(self, order: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
        """Return the runs between which is looked: one repetition each, or all of them where no looks are planned."""
        if self._spec.looks is None:
            return [list(order)]
        return [list(runs) for _, runs in groupby(order, key=lambda planned: planned.repetition)]

    async def take(self, repetition: int) -> bool:
        """Look after a repetition, if that is planned; true when the campaign may stop.

        Raises:
            DataError: a result file is damaged.
        """
        if self._spec.looks is None or repetition < _FIRST_LOOK_AFTER:
            return False
        run = f"rep-{repetition}"
        known = await self._journal.last_result(self._spec.id, run, LOOK_STEP)
        if known is None:
            look = await asyncio.to_thread(self._look, repetition)
            await self._journal.append(
                self._spec.id, kind="result", run=run, step=LOOK_STEP, payload=look.model_dump(mode="json")
            )
        else:
            look = CampaignLook.model_validate(known)
        self.taken = (*self.taken, look)
        return look.stop

    def _look(self, repetition: int) -> CampaignLook:
        assert self._spec.looks is not None
        earlier = self.taken[-1].established if self.taken else ()
        statistics = load_results(self._folder).statistics
        look = look_at(statistics, self._spec.repetitions, self._spec.looks.precision, earlier)
        if look.repetitions_done == repetition:
            return look
        return look.model_copy(
            update={
                "stop": False, "established": earlier,
                "reason": f"go on: repetition {repetition} is not whole in every compared configuration",
            }
        )  # fmt: skip
