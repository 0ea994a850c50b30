"""Who used the nodes' processors around each window of an attempt: all nodes look at the borders, none inside.

The look at the end of a window is the one that begins the next, so that each window costs a node one small request,
which falls into the gap. Not here: judging (`orchestrator.domain.run.disturbances`).
"""

import asyncio
from collections.abc import Sequence

from orchestrator.campaign.lab import Lab
from orchestrator.domain.run.records import WindowLoad
from shared.kernel.records import NodeName, WindowLabel


class NodeLoads:
    """The looks of one attempt."""

    def __init__(self, lab: Lab, nodes: Sequence[NodeName]) -> None:
        self._lab = lab
        self._nodes = nodes
        self._last: dict[NodeName, int] = {}
        self._told: list[WindowLoad] = []

    def told(self) -> tuple[WindowLoad, ...]:
        """Return what the nodes said of each window that has ended, in order."""
        return tuple(self._told)

    async def begin(self) -> None:
        """Let all nodes look: what comes from now on belongs to the next window.

        Raises:
            InfrastructureError: a node does not answer.
        """
        readings = await asyncio.gather(*(self._lab.load(name) for name in self._nodes))
        self._last = {name: reading.utc_ns for name, reading in zip(self._nodes, readings, strict=True)}

    async def end(self, label: WindowLabel) -> None:
        """Let all nodes look: a window has just ended.

        Raises:
            InfrastructureError: a node does not answer.
        """
        readings = await asyncio.gather(*(self._lab.load(name, self._last.get(name)) for name in self._nodes))
        told = {name: one.since for name, one in zip(self._nodes, readings, strict=True) if one.since is not None}
        self._told.append(WindowLoad(label=label, nodes=told))
        self._last = {name: reading.utc_ns for name, reading in zip(self._nodes, readings, strict=True)}
