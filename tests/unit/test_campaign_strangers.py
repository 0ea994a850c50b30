"""Who is a stranger on a worker's port, and when a load is given up for one."""

import asyncio
from typing import Any, cast

import pytest

from orchestrator.campaign import strangers
from orchestrator.campaign.lab import Lab
from orchestrator.campaign.strangers import StrangerError, find_strangers, unless_held
from shared.kernel.errors import InfrastructureError
from shared.wire.node_jobs.engines import NodeConnections, WorkerClient

ENGINE = "10.0.0.1:40000"


def client(address: str, *, served: bool = True, program: str = "") -> WorkerClient:
    return WorkerClient(address=address, program=program, served=served)


class Nodes:
    """Says for each node, look after look, who is connected; the last answer is given again and again."""

    def __init__(self, **looks: list[NodeConnections]) -> None:
        self._looks = looks

    async def connections(self, node: str) -> NodeConnections:
        left = self._looks[node]
        return left.pop(0) if len(left) > 1 else left[0]


def lab(**looks: list[NodeConnections]) -> Lab:
    return cast(Lab, cast(Any, Nodes(**looks)))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "_SECOND_LOOK_S", 0.0)


def of(*clients: WorkerClient) -> NodeConnections:
    return NodeConnections(worker="10.0.0.2:50052", clients=clients)


ROOT = [NodeConnections(engine=(ENGINE,))]


def find(nodes: Lab) -> dict[str, list[str]]:
    found = asyncio.run(find_strangers(nodes, "root", ["w"]))
    return {node: [one.address for one in clients] for node, clients in found.items()}


def test_the_engine_is_no_stranger_and_everybody_else_is() -> None:
    assert find(lab(root=ROOT, w=[of(client(ENGINE))])) == {}
    assert find(lab(root=ROOT, w=[of(client(ENGINE), client("10.0.0.9:1", served=False))])) == {"w": ["10.0.0.9:1"]}
    assert find(lab(root=[NodeConnections()], w=[of(client(ENGINE))])) == {"w": [ENGINE]}


def test_a_connection_that_comes_or_goes_between_two_looks_is_none() -> None:
    assert find(lab(root=ROOT, w=[of(client("10.0.0.9:1")), of()])) == {}
    assert find(lab(root=ROOT, w=[of(client("10.0.0.9:1")), of(client("10.0.0.9:2"))])) == {}


def test_a_load_is_given_up_for_one_who_is_served_not_for_one_who_waits() -> None:
    async def load(nodes: Lab, *, seconds: float = 0.3, fails: bool = False) -> str:
        async def loading() -> str:
            await asyncio.sleep(seconds)
            if fails:
                raise InfrastructureError("the RPC worker does not answer")
            return "loaded"

        return await unless_held(nodes, "root", ["w"], loading(), every_s=0.05)

    held = of(client("10.0.0.9:1", program="nmap, pid 7"))
    assert asyncio.run(load(lab(root=ROOT, w=[of(client("10.0.0.9:1", served=False), client(ENGINE))]))) == "loaded"
    with pytest.raises(StrangerError, match=r"w's worker is connected to 10\.0\.0\.9:1 \(nmap, pid 7\)"):
        asyncio.run(load(lab(root=ROOT, w=[held]), seconds=30))
    with pytest.raises(StrangerError, match="nmap"):
        asyncio.run(load(lab(root=ROOT, w=[held]), seconds=0.0, fails=True))
    with pytest.raises(InfrastructureError, match="does not answer"):
        asyncio.run(load(lab(root=ROOT, w=[of(client(ENGINE))]), seconds=0.0, fails=True))
