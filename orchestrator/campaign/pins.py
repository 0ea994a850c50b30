"""What a campaign needs is kept from being removed, on the surgeon and on the roots, until it has ended for good.

Not here: what is needed (`preparation`), how an agent makes room (`shared.files.artifacts`).
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel

from orchestrator.campaign.calls import Call
from orchestrator.campaign.context import CampaignContext
from orchestrator.campaign.topology import roots_of
from orchestrator.domain.campaign.schedule import configurations_of
from orchestrator.domain.campaign.steps import SetupStep
from shared.kernel.errors import DataError, EpiError
from shared.kernel.records import CampaignId, NodeName, Sha256
from shared.wire.artifacts import PinParams, PinResult
from shared.wire.client import AgentClient

log = logging.getLogger(__name__)

R = TypeVar("R", bound=BaseModel)
Ended = Callable[[CampaignId], Awaitable[bool]]
"""Tells whether a campaign has ended for good, so that what it pinned may go."""


async def pin(
    context: CampaignContext, client: AgentClient, agent: NodeName, sha256s: tuple[Sha256, ...], ended: Ended
) -> tuple[Sha256, ...]:
    """Keep what the campaign needs on an agent, free what campaigns that have ended pinned there; return what is gone.

    Raises:
        EpiError: the agent's error.
    """
    spec, caller = context.spec, context.caller
    timeout_s = spec.timeouts.handling("pin_base")

    def call(params: PinParams) -> Call:
        return Call(agent, client, "pin", params, timeout_s)

    pinned = await caller.run_fresh("pin_base", call(PinParams(owner=spec.id, sha256s=sha256s)), PinResult)
    for owner in pinned.owners:
        if owner != spec.id and await ended(owner):
            await caller.run_fresh("release", call(PinParams(owner=owner)), PinResult)
    return pinned.missing


class SurgeonPins:
    """What one campaign needs on the surgeon: models and statistics. Variants need no pin, a plan makes them again."""

    def __init__(self, context: CampaignContext, ended: Ended) -> None:
        self._context = context
        self._ended = ended
        self._needed: dict[Sha256, None] = {}

    async def made(
        self, run: str, step: SetupStep, call: Call, result: type[R], files_of: Callable[[R], tuple[Sha256, ...]]
    ) -> R:
        """Return a step's journaled result and keep its files; those that are gone meanwhile are made again.

        Raises:
            DataError: made again, they are others: what was measured and what comes cannot be compared.
            EpiError: the surgeon's error.
        """
        answer = await self._context.caller.idempotent(run, step, call, result)
        self._needed.update(dict.fromkeys(files_of(answer)))
        if not await self._pin():
            return answer
        again = await self._context.caller.run_fresh(step, call, result)
        if files_of(again) != files_of(answer) or await self._pin():
            raise DataError(
                f"the surgeon's files of {step} were removed, and made again they are others",
                where=self._context.spec.id,
                hint="start a new campaign: the model, the corpus or the program changed",
            )  # fmt: skip
        return answer

    async def _pin(self) -> tuple[Sha256, ...]:
        return await pin(self._context, self._context.lab.surgeon, "surgeon", tuple(self._needed), self._ended)


async def release(context: CampaignContext) -> None:
    """Say that a campaign needs nothing any more; who is away hears it when the next campaign begins."""
    spec, lab = context.spec, context.lab
    timeout_s = spec.timeouts.handling("release")
    agents = {root: lab.nodes[root] for root in roots_of(configurations_of(spec), list(lab.nodes))}
    for agent, client in {**agents, "surgeon": lab.surgeon}.items():
        call = Call(agent, client, "pin", PinParams(owner=spec.id), timeout_s)
        try:
            await context.caller.run_fresh("release", call, PinResult, tries=1)
        except EpiError as error:
            log.warning("%s keeps what %s pinned: %s", agent, spec.id, error)
