"""What a campaign needs is kept from being removed, on the surgeon and on the roots, until it has ended for good.

Not here: what is needed (`preparation`), how an agent makes room (`shared.files.artifacts`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from orchestrator.campaign.calls import Call
from orchestrator.campaign.context import CampaignContext
from orchestrator.campaign.topology import roots_of
from orchestrator.domain.campaign.schedule import configurations_of
from orchestrator.domain.campaign.steps import SetupStep
from shared.kernel.errors import DataError, EpiError
from shared.kernel.records import CampaignId, NodeName, Sha256
from shared.wire.artifact_checks import CheckParams, CheckResult
from shared.wire.artifacts import PinParams, PinResult
from shared.wire.client import AgentClient

log = logging.getLogger(__name__)

R = TypeVar("R", bound=BaseModel)
Ended = Callable[[CampaignId], Awaitable[bool]]
"""Tells whether a campaign has ended for good, so that what it pinned may go."""


async def pin(
    context: CampaignContext, client: AgentClient, agent: NodeName, sha256s: tuple[Sha256, ...], ended: Ended
) -> None:
    """Keep what the campaign needs on an agent, free what campaigns that have ended pinned there.

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


@dataclass(frozen=True)
class _Made:
    """Files of a step, how they were asked for, and which they were."""

    step: SetupStep
    call: Call
    sha256s: tuple[Sha256, ...]
    make: Callable[[], Awaitable[tuple[Sha256, ...]]]


class SurgeonPins:
    """What one campaign needs on the surgeon: models and statistics. Variants need no pin, a plan makes them again.

    Every file is hashed once each time the campaign is set running, and again when something fails for want of it.
    """

    def __init__(self, context: CampaignContext, ended: Ended) -> None:
        self._context = context
        self.ended = ended
        self._made: list[_Made] = []
        self._restoring = asyncio.Lock()

    async def made(
        self, run: str, step: SetupStep, call: Call, result: type[R], files_of: Callable[[R], tuple[Sha256, ...]]
    ) -> R:
        """Return a step's journaled result and keep its files; those that are gone or damaged are made again.

        Raises:
            DataError: made again, they are others: what was measured and what comes cannot be compared.
            EpiError: the surgeon's error.
        """
        answer = await self._context.caller.idempotent(run, step, call, result)

        async def make() -> tuple[Sha256, ...]:
            return files_of(await self._context.caller.run_fresh(step, call, result))

        made = _Made(step, call, files_of(answer), make)
        self._made.append(made)
        await self._pin()
        await self._restore([made])
        return answer

    async def restore(self, sha256s: Collection[Sha256] = ()) -> bool:
        """Hash these files anew (none named: all) and make again what is gone or damaged; tell whether anything was.

        Raises:
            EpiError: as `made`.
        """
        async with self._restoring:
            return await self._restore([
                made for made in self._made if not sha256s or not frozenset(sha256s).isdisjoint(made.sha256s)
            ])  # fmt: skip

    async def _restore(self, every: Sequence[_Made]) -> bool:
        if not every:
            return False
        gone = await self._gone([sha256 for made in every for sha256 in made.sha256s])
        for made in every:
            if gone.isdisjoint(made.sha256s):
                continue
            again = await made.make()
            await self._pin()
            if again != made.sha256s or await self._gone(made.sha256s):
                raise DataError(
                    f"the surgeon's files of {made.step} were lost, and made again they are others",
                    where=self._context.spec.id,
                    hint="start a new campaign: the model, the corpus or the program changed",
                )  # fmt: skip
        return bool(gone)

    async def _gone(self, sha256s: Sequence[Sha256]) -> frozenset[Sha256]:
        """Let the surgeon hash files; return which are gone, those that were damaged included."""
        context, wanted = self._context, tuple(dict.fromkeys(sha256s))
        timeout_s = context.spec.timeouts.unsized("prepare")
        call = Call(
            "surgeon", context.lab.surgeon, "check_artifacts", CheckParams(sha256s=wanted, anew=wanted), timeout_s
        )
        found = await context.caller.run_fresh("pin_base", call, CheckResult)
        await context.caller.found_damaged("", 0, "surgeon", found.damaged)
        return frozenset(found.missing)

    async def _pin(self) -> None:
        needed = dict.fromkeys(sha256 for made in self._made for sha256 in made.sha256s)
        await pin(self._context, self._context.lab.surgeon, "surgeon", tuple(needed), self.ended)


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
