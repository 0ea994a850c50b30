"""Answers that come after a run was measured: its result is calculated anew with them.

Not here: who answers (`scorers`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from orchestrator.benchmarks.answer_sets import AnswerSet
from orchestrator.campaign.answers import source_of
from orchestrator.campaign.evaluation import figures_of
from orchestrator.campaign.patience import Patience
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.run.records import RunInput
from orchestrator.results.files import list_runs, read_json, run_files, write_run
from orchestrator.results.recompute import MeasuredFiles
from orchestrator.store.journal import Journal
from orchestrator.store.records import RunFigures
from shared.kernel.records import CampaignId, ConfigurationId


class LateAnswers:
    """Gives answers to the measured runs of one campaign that lack them.

    Args:
        writing: Held by whoever writes a run's results and journals them.
    """

    def __init__(
        self,
        journal: Journal,
        campaign: CampaignId,
        campaign_dir: Path,
        patience: Patience,
        is_stop_requested: Callable[[], Awaitable[bool]],
        writing: asyncio.Lock,
    ) -> None:
        self._journal = journal
        self._campaign = campaign
        self._campaign_dir = campaign_dir
        self._patience = patience
        self._is_stop_requested = is_stop_requested
        self._writing = writing

    async def give(self, configuration: ConfigurationId, answers: AnswerSet) -> None:
        """Complete every measured run of a configuration; one that has its answers is left as it is.

        Raises:
            EpiError: files are damaged, or the disk was full until somebody asked to stop.
        """
        for run in await asyncio.to_thread(self._measured, configuration):
            async with self._writing:
                figures = await self._patience.results(
                    lambda run=run: _complete(self._campaign_dir, run, answers),  # type: ignore[misc]
                    self._is_stop_requested,
                )
                if figures is not None:
                    payload = figures.model_dump(mode="json")
                    await self._journal.append(
                        self._campaign, kind="result", run=run, step="evaluate", payload=payload
                    )  # fmt: skip

    def _measured(self, configuration: ConfigurationId) -> list[RunReference]:
        if not (self._campaign_dir / configuration).is_dir():
            return []
        return [run for run in list_runs(self._campaign_dir) if run.configuration == configuration]


def _complete(campaign_dir: Path, run: RunReference, answers: AnswerSet) -> RunFigures | None:
    """Write a run's results with its answers and return the figures; None where it has them."""
    if read_json(RunInput, run_files(campaign_dir, run)["run"]).answers is not None:
        return None  # seen without its trace, which may be long
    told = MeasuredFiles.read(campaign_dir, run).answered(answers.untimed, source_of(answers))
    evaluated = told.evaluate()
    write_run(campaign_dir, told.run, evaluated, told.questions, told.sample)
    return figures_of(told.run, evaluated.evaluation)
