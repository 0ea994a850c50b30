"""Strangers on the workers' ports: found, named, and, by ending the workers, thrown out.

A worker (llama.cpp's RPC server, distributed-llama's) serves one client at a time and has no authentication: one idle
connection, a port scan or a monitoring probe keeps the engine waiting for ever. Between windows each worker's node says
who is connected to it, and the root's node which ends are its engine's; whoever is left is a stranger. Not here: ending
and starting workers (`cluster`).
"""

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import TypeVar

from orchestrator.campaign.lab import Lab
from shared.kernel.errors import EpiError, InfrastructureError
from shared.kernel.records import NodeName
from shared.wire.node_jobs.engines import WorkerClient

_SECOND_LOOK_S = 0.5
_LOOK_EVERY_S = 5.0

R = TypeVar("R")
Strangers = dict[NodeName, tuple[WorkerClient, ...]]


class StrangerError(InfrastructureError):
    """Somebody else holds a worker of the attempt."""

    def __init__(self, strangers: Strangers) -> None:
        super().__init__(
            f"somebody else holds a worker, which serves one client at a time: {described(strangers)}",
            where=", ".join(strangers),
            hint="end that program, or let the firewall keep everybody but the lab's nodes from the workers' ports",
        )
        self.strangers = strangers


async def find_strangers(lab: Lab, root: NodeName, workers: Sequence[NodeName]) -> Strangers:
    """Return node -> who is connected to its worker and is not the root's engine; nodes without strangers are left out.

    Connections come and go while one looks: a stranger is who is there twice.

    Raises:
        InfrastructureError: a node does not answer.
    """
    first = await _look(lab, root, workers)
    if not first:
        return {}
    await asyncio.sleep(_SECOND_LOOK_S)
    second = await _look(lab, root, workers)
    both = {
        node: tuple(one for one in clients if one.address in {other.address for other in first.get(node, ())})
        for node, clients in second.items()
    }
    return {node: clients for node, clients in both.items() if clients}


async def _look(lab: Lab, root: NodeName, workers: Sequence[NodeName]) -> Strangers:
    before = await lab.connections(root)
    answers = await asyncio.gather(*(lab.connections(name) for name in workers))
    engine = {*before.engine, *(await lab.connections(root)).engine}
    found = {
        name: tuple(client for client in answer.clients if client.address not in engine)
        for name, answer in zip(workers, answers, strict=True)
    }
    return {name: clients for name, clients in found.items() if clients}


def described(strangers: Strangers) -> str:
    """Name them for a person."""
    return "; ".join(
        f"{node}'s worker is connected to {', '.join(str(client) for client in clients)}"
        for node, clients in strangers.items()
    )


async def unless_held(
    lab: Lab, root: NodeName, workers: Sequence[NodeName], loading: Awaitable[R], every_s: float = _LOOK_EVERY_S
) -> R:
    """Wait for an engine that loads; give up as soon as one of its workers serves a stranger instead.

    Raises:
        StrangerError: a stranger is served; he is named.
        EpiError: what the loading itself raises.
    """
    task = asyncio.ensure_future(loading)
    try:
        while True:
            done, _ = await asyncio.wait((task,), timeout=every_s)
            error = task.exception() if done else None
            if done and not isinstance(error, EpiError):
                return task.result()
            if served := await _served_strangers(lab, root, workers):
                raise StrangerError(served) from error
            if done:
                return task.result()
    finally:
        task.cancel()


async def _served_strangers(lab: Lab, root: NodeName, workers: Sequence[NodeName]) -> Strangers:
    """Return those who are served; an agent that is away does not end a load, which needs only its worker."""
    strangers: Strangers = {}
    with suppress(EpiError):
        strangers = await find_strangers(lab, root, workers)
    served = {node: tuple(one for one in clients if one.served) for node, clients in strangers.items()}
    return {node: clients for node, clients in served.items() if clients}
