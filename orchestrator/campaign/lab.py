"""The lab as the runner sees it: one client for each agent, the fixed prompts, and whether a window is open."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.domain.run.clocks import ClockOffset
from orchestrator.settings import SURGEON, OrchestratorSettings
from shared.kernel.clock import NS_PER_S, utc_ns
from shared.kernel.errors import ConfigurationError, NotFoundError
from shared.kernel.records import NodeName
from shared.kernel.regular_files import SETTINGS_BYTES, read_text
from shared.kernel.settings import AgentAddress
from shared.service.endpoint import Endpoint
from shared.wire.client import AgentClient
from shared.wire.footprint import FootprintAnswer, FootprintParams, FootprintReply, FootprintRequest
from shared.wire.meter_api import MeterStatus, SampleBlock
from shared.wire.node_jobs.activity import AgentActivity
from shared.wire.node_jobs.engines import EngineInfo, NodeConnections
from shared.wire.node_jobs.host import NodeFacts
from shared.wire.node_jobs.load import LoadReading
from shared.wire.surgeon_catalogue import Catalogue


class Lab:
    """Clients of all agents. `window_open` is true while nothing may touch the nodes."""

    def __init__(self, settings: OrchestratorSettings) -> None:
        self.settings = settings
        self.nodes = {address.name: _client(address) for address in settings.nodes}
        self.root_name = settings.nodes[0].name
        self.root = self.nodes[self.root_name]
        self.scorers = {address.name: _client(address) for address in settings.scorers}
        self.surgeon = _client(settings.surgeon)
        self.meter = _client(settings.meter)
        self.window_open = False
        self._measuring = asyncio.Lock()
        self._node_hosts = {_host(address) for address in settings.nodes}
        self._scorer_hosts = {address.name: _host(address) for address in settings.scorers}

    async def close(self) -> None:
        """Close all connections."""
        for client in (*self.nodes.values(), *self.scorers.values(), self.surgeon, self.meter):
            await client.close()

    def agent(self, name: NodeName) -> AgentClient:
        """Return the client of a node, or of the surgeon by its name.

        Raises:
            NotFoundError: the lab has no such agent (any more).
        """
        if name == SURGEON:
            return self.surgeon
        agents = self.nodes | self.scorers
        if name not in agents:
            raise NotFoundError("the lab has no such agent", where=name, hint=f"it has {', '.join(agents)}")
        return agents[name]

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """Keep off what shares the nodes' machines, from before the first window to after the last; one at a time."""
        async with self._measuring:
            yield

    def is_beside_a_node(self, scorer: NodeName) -> bool:
        """Tell whether a scorer runs on the machine of a node, by their addresses: it then works between windows."""
        return self._scorer_hosts[scorer] in self._node_hosts

    @contextmanager
    def window(self) -> Iterator[None]:
        """Mark the time in which nodes are left alone."""
        self.window_open = True
        try:
            yield
        finally:
            self.window_open = False

    async def meter_status(self) -> MeterStatus:
        """Ask the bridge how the meter is."""
        return await self.meter.request_as(MeterStatus, "GET", "/v1/meter")

    async def samples(self, start_utc_ns: int, end_utc_ns: int) -> SampleBlock:
        """Return the calibrated trace of [start, end)."""
        params = {"start_utc_ns": start_utc_ns, "end_utc_ns": end_utc_ns}
        return await self.meter.request_as(SampleBlock, "GET", "/v1/samples", params=params)

    async def catalogue(self) -> Catalogue:
        """Return what the surgeon has and can do."""
        return await self.surgeon.request_as(Catalogue, "GET", "/v1/catalogue")

    async def footprints(self, items: Sequence[FootprintParams]) -> tuple[FootprintAnswer, ...]:
        """Return what each variant and serving takes in memory, calculated by the surgeon."""
        request = FootprintRequest(items=tuple(items)).model_dump(mode="json")
        return (await self.surgeon.request_as(FootprintReply, "POST", "/v1/footprints", json=request)).answers

    async def facts(self, node: NodeName) -> NodeFacts:
        """Return what a node says of itself."""
        return await self.agent(node).request_as(NodeFacts, "GET", "/v1/facts")

    async def activity(self, node: NodeName) -> AgentActivity:
        """Return what a node's agent did since its start."""
        return await self.nodes[node].request_as(AgentActivity, "GET", "/v1/activity")

    async def load(self, node: NodeName, since_utc_ns: int | None = None) -> LoadReading:
        """Let a node look at who uses its processors, and return what happened since an earlier look."""
        params = {} if since_utc_ns is None else {"since": since_utc_ns}
        return await self.nodes[node].request_as(LoadReading, "GET", "/v1/load", params=params)

    async def connections(self, node: NodeName) -> NodeConnections:
        """Return who is connected to a node's worker, and where its engine is connected from."""
        return await self.nodes[node].request_as(NodeConnections, "GET", "/v1/connections")

    async def engines(self, node: NodeName) -> list[EngineInfo]:
        """Return what each engine of a node can do."""
        answer = await self.nodes[node].request("GET", "/v1/engines")
        return [await self.nodes[node].read(EngineInfo, one) for one in answer]

    async def clock_offset(self, node: NodeName) -> ClockOffset:
        """Return the node's clock minus ours, by the mid-point of the quickest of three round trips."""
        trips: list[tuple[int, int, int]] = []
        for _ in range(3):
            before = utc_ns()
            health = await self.nodes[node].health()
            after = utc_ns()
            middle = (before + after) // 2
            trips.append((after - before, health.utc_ns - middle, middle))
        round_trip_ns, offset_ns, middle = min(trips)
        return ClockOffset(utc_ns=middle, offset_ns=offset_ns, uncertainty_s=round_trip_ns / 2 / NS_PER_S)

    def prompts(self, count: int) -> tuple[str, ...]:
        """Return the first `count` fixed workload prompts.

        Raises:
            ConfigurationError: the file is missing or holds fewer.
        """
        path = self.settings.workload_prompts
        return load_prompts(path, count)


def load_prompts(path: Path, count: int) -> tuple[str, ...]:
    """Read prompts, one a line; blank lines do not count.

    Raises:
        ConfigurationError: the file cannot be read or holds fewer than `count`.
    """
    try:
        text = read_text(path, SETTINGS_BYTES)
    except OSError as error:
        raise ConfigurationError(f"cannot read the workload prompts: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError("the workload prompts are no UTF-8", where=str(path)) from error
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if len(prompts) < count:
        raise ConfigurationError(f"{count} workload prompts are asked, the file holds {len(prompts)}", where=str(path))
    return tuple(prompts[:count])


def _host(address: AgentAddress) -> str:
    return urlsplit(address.url).hostname or ""


def _client(address: AgentAddress) -> AgentClient:
    endpoint = Endpoint.of(address)
    return AgentClient(endpoint.url, endpoint.token, ca_file=endpoint.ca_file)
