"""Endpoints about the lab: who is there, how the meter is, recent power, which board is which node.

While a measurement window is open no agent is asked: the last answer is given again and says that it is cached.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Query

from orchestrator.api.models import AgentStatus, LabStatus
from orchestrator.campaign.find_channel import FindNodeRequest, FindNodeResult, find_node
from orchestrator.campaign.lab import Lab
from orchestrator.campaign.live import LiveBroadcaster
from orchestrator.campaign.service import CampaignService
from shared.kernel.clock import NS_PER_S, utc_ns
from shared.kernel.errors import EpiError, InfrastructureError
from shared.kernel.records import NodeName
from shared.wire.client import AgentClient
from shared.wire.meter_api import LivePower, MeterStatus
from shared.wire.node_jobs.host import NodeFacts
from shared.wire.protocol import Health

_FRESH_S = 2.0
_ANSWERS_WITHIN_S = 3.0
"""One that hangs must not keep back what is known of the others."""


class LabView:
    """Asks the agents, at most every two seconds and never inside a window."""

    def __init__(self, lab: Lab, own_health: Callable[[], Health]) -> None:
        self._lab = lab
        self._own_health = own_health
        self._last: LabStatus | None = None
        self._asking = asyncio.Lock()

    async def status(self) -> LabStatus:
        """Return the lab's status, from the cache inside a window."""
        async with self._asking:
            last = self._last
            if last is not None and (self._lab.window_open or utc_ns() - last.utc_ns < _FRESH_S * NS_PER_S):
                return last.model_copy(update={"cached": True, "health": self._own_health()})
            self._last = await self._ask()
            return self._last

    async def _ask(self) -> LabStatus:
        nodes = [self._agent(name, "node_agent", client, facts=True) for name, client in self._lab.nodes.items()]
        scorers = [self._agent(name, "scorer", client, facts=True) for name, client in self._lab.scorers.items()]
        agents = await asyncio.gather(
            *nodes,
            *scorers,
            self._agent("surgeon", "surgeon", self._lab.surgeon),
            self._agent("meter", "meter_bridge", self._lab.meter),
        )
        meter: MeterStatus | None = None
        if agents[-1].error is None:
            with suppress(EpiError, TimeoutError):
                async with asyncio.timeout(_ANSWERS_WITHIN_S):
                    meter = await self._lab.meter_status()
        return LabStatus(
            agents=tuple(agents), meter=meter, emulated=meter is not None and meter.instrument.emulated, cached=False,
            utc_ns=utc_ns(), health=self._own_health(),
        )  # fmt: skip

    async def _agent(self, name: str, service: str, client: AgentClient, *, facts: bool = False) -> AgentStatus:
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN_S):
                health = await client.health(patient=False)
                told = await client.request_as(NodeFacts, "GET", "/v1/facts", patient=False) if facts else None
        except TimeoutError:
            silent = InfrastructureError(
                f"the agent did not answer within {_ANSWERS_WITHIN_S:g} s", where=client.base_url,
                hint="is its process stopped, or its machine away?",
            )  # fmt: skip
            return AgentStatus(name=name, service=service, url=client.base_url, error=silent.to_payload())
        except EpiError as error:
            return AgentStatus(name=name, service=service, url=client.base_url, error=error.to_payload())
        return AgentStatus(
            name=name, service=service, url=client.base_url, health=health, seen_utc_ns=utc_ns(),
            facts=told,
        )  # fmt: skip


def lab_router(view: LabView, broadcaster: LiveBroadcaster, service: CampaignService) -> APIRouter:
    """Return the endpoints of the lab."""
    router = APIRouter(prefix="/v1", tags=["lab"])

    @router.get("/lab")
    async def lab() -> LabStatus:
        """Return all agents and the meter as last seen."""
        return await view.status()

    @router.post("/lab/nodes/{node}/identify", include_in_schema=False)  # its former name
    @router.post("/lab/nodes/{node}/find")
    async def find(node: NodeName, request: FindNodeRequest) -> FindNodeResult:
        """Let a node blink its status LED, or find its channel of the meter by a load; answers when it is done."""
        return await find_node(service, node, request.by)

    @router.get("/power")
    async def power(seconds: Annotated[float, Query(gt=0, le=600)] = 60.0) -> list[LivePower]:
        """Return the recent power of all nodes, oldest first."""
        return broadcaster.recent_power(seconds)

    return router
