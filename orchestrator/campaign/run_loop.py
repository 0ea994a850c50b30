"""Bringing one run home: its variant, then attempts until one succeeds. Faults decide about another try.

Infrastructure faults are tried again up to `max_attempts`; configuration and data faults never.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from orchestrator.campaign.attempt import AttemptPlace, AttemptRunner
from orchestrator.campaign.evaluation import ResultWriter
from orchestrator.campaign.pipeline import VariantPipeline
from orchestrator.campaign.preparation import Variant
from orchestrator.domain.schedule import PlannedRun
from orchestrator.domain.spec import CampaignSpec
from orchestrator.store.journal import Journal
from shared.errors import EpiError, InfrastructureError

_RETRY_DELAY_S = 1.0
_RETRY_DELAY_MAX_S = 10.0


@dataclass(frozen=True)
class RunLoop:
    """What the runs of one campaign have in common."""

    journal: Journal
    spec: CampaignSpec
    attempts: AttemptRunner
    writer: ResultWriter
    variants: VariantPipeline
    obey: Callable[[], Awaitable[None]]
    tell: Callable[[str, str], None]

    async def bring_home(self, planned: PlannedRun) -> str | None:
        """Bring one run to its end; return why when its configuration cannot be measured.

        Raises:
            InfrastructureError: `max_attempts` attempts broke; the campaign stops, to be resumed when it is mended.
        """
        if await self.journal.last_result(self.spec.id, planned.run, "evaluate") is not None:
            return None
        self.tell(planned.run, "plan")
        try:
            variant = await self.variants.get(planned.configuration)
        except InfrastructureError:
            raise
        except EpiError as error:
            return str(error)
        failures = 0
        while True:
            try:
                await self._attempt(planned, variant)
            except InfrastructureError as error:
                failures += 1
                if failures >= self.spec.max_attempts:
                    raise InfrastructureError(
                        f"{planned.run} broke {failures} times, last: {error.message}", where=error.where,
                        hint="mend it, then `epi campaign resume`",
                    ) from error  # fmt: skip
                await asyncio.sleep(min(_RETRY_DELAY_S * failures, _RETRY_DELAY_MAX_S))
                await self.obey()
            except EpiError as error:
                return str(error)
            else:
                return None

    async def _attempt(self, planned: PlannedRun, variant: Variant) -> None:
        campaign = self.spec.id
        number = await self.journal.begin_attempt(campaign, planned.run)
        place = AttemptPlace(planned.run, number, planned.configuration, planned.repetition)
        try:
            measured = await self.attempts.measure(place, variant)
            self.tell(planned.run, "evaluate")
            await self.journal.append(campaign, kind="intent", run=planned.run, attempt=number, step="evaluate")
            payload = await asyncio.to_thread(self.writer.write_run, measured, variant)
        except EpiError as error:
            await self.journal.end_attempt(
                campaign, planned.run, number, "failed", reason=str(error), fault=error.fault
            )
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            await self.journal.end_attempt(campaign, planned.run, number, "failed", reason=reason, fault="bug")
            raise
        await self.journal.append(campaign, kind="result", run=planned.run, step="evaluate", payload=payload)
        await self.journal.end_attempt(campaign, planned.run, number, "done")
