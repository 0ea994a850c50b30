"""Between a fault and the next attempt: old jobs are stopped on the nodes, and who is away is waited for.

Nothing here runs inside a window, except that the surgeon, who measures nothing, is waited for at any time.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from orchestrator.campaign.lab import Lab
from orchestrator.domain.campaign.job_keys import AttemptJob
from orchestrator.domain.campaign.states import CampaignState
from orchestrator.store.journal import Journal
from shared.kernel.errors import DataError, EpiError, InfrastructureError, NotFoundError
from shared.kernel.records import NodeName
from shared.wire.job_keys import ScrubJob
from shared.wire.protocol import JobSummary

log = logging.getLogger(__name__)

_FIRST_CHECK_S = 1.0
_LONGEST_PAUSE_S = 10.0
_PATIENT_TRIES = 5

T = TypeVar("T")


class StopRequestedError(Exception):
    """Somebody asked for a pause or a cancellation; `state` is what the campaign becomes."""

    def __init__(self, state: CampaignState) -> None:
        super().__init__(state)
        self.state = state


class Recovery:
    """Brings the lab back to where an attempt may begin."""

    def __init__(
        self,
        journal: Journal,
        lab: Lab,
        recover_s: float,
        check_stop_requested: Callable[[], Awaitable[None]],
        publish: Callable[[str], None],
    ) -> None:
        self._journal = journal
        self._lab = lab
        self._recover_s = recover_s
        self._check_stop_requested = check_stop_requested
        self._publish = publish

    async def stop_leftovers(self) -> None:
        """Ask every node what it does; a job of an attempt that is over is cancelled, and the journal says so.

        After a cut or a kill a node may still work for an attempt that nobody waits for; the next one would queue
        behind it. Jobs that no campaign of this journal asked for are left alone.

        Raises:
            InfrastructureError: a node does not answer.
        """
        await asyncio.gather(*(self._stop_on(name) for name in self._lab.nodes))

    async def wait_for_lab(self) -> None:
        """Wait until all nodes and the meter answer, as long as the spec allows.

        Raises:
            InfrastructureError: they did not come back; says who.
        """
        await self._wait(self._lab_away)

    async def wait_for(self, agent: NodeName) -> None:
        """Wait until one agent answers, as long as the spec allows.

        Raises:
            InfrastructureError: it did not come back.
        """
        await self._wait(lambda: self._agent_away(agent))

    async def patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the lab between attempts; when somebody is away, wait for the lab and ask again.

        Raises:
            InfrastructureError: the lab did not come back, or answers and still refuses.
        """
        for _ in range(_PATIENT_TRIES - 1):
            try:
                return await ask()
            except InfrastructureError:
                await self.wait_for_lab()
        return await ask()

    async def _wait(self, check: Callable[[], Awaitable[list[str]]]) -> None:
        deadline = time.monotonic() + self._recover_s
        pause_s = _FIRST_CHECK_S
        told: list[str] = []
        while True:
            await asyncio.sleep(pause_s)
            await self._check_stop_requested()
            if not (away := await check()):
                if told:
                    log.info("all have come back")
                return
            if time.monotonic() > deadline:
                raise InfrastructureError(
                    f"did not come back within {self._recover_s:.0f} s: {'; '.join(away)}",
                    hint="mend it, then `epi campaign resume`",
                )
            if away != told:
                log.warning("waiting until they come back: %s", "; ".join(away))
                told = away
            self._publish(f"waiting: {'; '.join(away)}")
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)

    async def _lab_away(self) -> list[str]:
        checks = await asyncio.gather(*(self._agent_away(name) for name in self._lab.nodes), self._meter_away())
        return [one for check in checks for one in check]

    async def _agent_away(self, name: str) -> list[str]:
        try:
            health = await self._lab.agent(name).health(patient=False)
        except InfrastructureError:
            return [f"{name} does not answer"]
        return [f"{name}: {health.problems[0]}"] if health.status == "failing" else []

    async def _meter_away(self) -> list[str]:
        try:
            status = await self._lab.meter_status()
        except InfrastructureError:
            return ["the meter bridge does not answer"]
        return [] if status.connected else [f"the meter is silent ({'; '.join(status.problems) or 'not connected'})"]

    async def _stop_on(self, node: NodeName) -> None:
        for job in await self._lab.nodes[node].unfinished_jobs():
            await self._stop(node, job)

    async def _stop(self, node: NodeName, job: JobSummary) -> None:
        if _is_scrub(job.id):  # of an orchestrator that died: nothing is hashed beside an attempt
            await self._lab.nodes[node].cancel(job.id)
            return
        try:
            asked = AttemptJob.parse(job.id)
        except DataError:
            return  # no attempt's: a setup job goes on, a person's job is the person's
        try:
            await self._journal.find(asked.campaign)
        except NotFoundError:
            return
        await self._lab.nodes[node].cancel(job.id)
        await self._journal.append(
            asked.campaign, kind="interrupted", run=asked.run, attempt=asked.attempt, step=asked.step,
            payload={"job": job.id, "agent": node, "was": job.status},
        )  # fmt: skip


def _is_scrub(job_id: str) -> bool:
    try:
        ScrubJob.parse(job_id)
    except DataError:
        return False
    return True


async def what_became_of(lab: Lab, job: AttemptJob) -> str:
    """Say in words what an agent knows of a job that nobody waited for."""
    try:
        client = lab.agent(job.agent)
    except NotFoundError as error:
        return f"{job.agent} cannot be asked: {error.message}"
    try:
        state = await client.job(job.format())
    except NotFoundError:
        return f"{job.agent} had not got it yet"
    except EpiError as error:
        return f"{job.agent} cannot be asked: {error.message}"
    return f"{job.agent} says it is {state.status}"
