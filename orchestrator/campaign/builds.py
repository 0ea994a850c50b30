"""What every agent of the lab runs, asked when a campaign is set running; nodes that cannot share a model are refused.

Not here: judging a difference that is only worth a flag (`orchestrator.domain.run.validity`).
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.campaign.lab import Lab
from orchestrator.campaign.topology import nodes_of
from shared.kernel.build import SoftwareBuild, software_build
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import Configuration, NodeName
from shared.llama.build import EngineBuild
from shared.wire.node_jobs.host import NodeFacts


@dataclass(frozen=True)
class LabBuilds:
    """The builds of a lab; an agent of an earlier version says nothing and is missing."""

    software: Mapping[str, SoftwareBuild]
    engines: Mapping[NodeName, EngineBuild]

    def of_run(self, facts: Mapping[NodeName, NodeFacts]) -> "LabBuilds":
        """Return those of one run: what its nodes said of themselves in it, and the lab's other agents."""
        others = {name: build for name, build in self.software.items() if name not in self.nodes}
        return LabBuilds(others | _software(facts), _engines(facts))

    @property
    def nodes(self) -> frozenset[str]:
        """Names in `software` that are nodes."""
        return frozenset(self.software) - {"orchestrator", "surgeon", "meter"}


async def find_builds(lab: Lab) -> LabBuilds:
    """Ask every agent.

    Raises:
        InfrastructureError: one does not answer.
    """
    facts = await asyncio.gather(*(lab.facts(name) for name in lab.nodes))
    surgeon, meter = await asyncio.gather(lab.surgeon.health(), lab.meter.health())
    by_name = dict(zip(lab.nodes, facts, strict=True))
    found = {"orchestrator": software_build(), "surgeon": surgeon.build, "meter": meter.build}
    named = {name: build for name, build in found.items() if build is not None}
    return LabBuilds(named | _software(by_name), _engines(by_name))


def check_builds(lab_nodes: Sequence[NodeName], builds: LabBuilds, configurations: Sequence[Configuration]) -> None:
    """Refuse nodes with different llama.cpp: its RPC protocol holds within one build only, and results would differ.

    Raises:
        ConfigurationError: they differ; each build is named.
    """
    in_use = {name for one in configurations for name in nodes_of(one, lab_nodes)}
    nodes_by_build: dict[str, list[NodeName]] = {}
    for name, engine in builds.engines.items():
        if name in in_use:
            nodes_by_build.setdefault(" ".join(filter(None, engine.same_results)), []).append(name)
    if len(nodes_by_build) > 1:
        listed = "; ".join(f"{build} on {', '.join(names)}" for build, names in nodes_by_build.items())
        raise ConfigurationError(
            f"the nodes have different builds of llama.cpp: {listed}", where="nodes",
            hint="install one release on all of them (upgrade.yml)",
        )  # fmt: skip


def _software(facts: Mapping[NodeName, NodeFacts]) -> dict[str, SoftwareBuild]:
    return {name: one.software for name, one in facts.items() if one.software is not None}


def _engines(facts: Mapping[NodeName, NodeFacts]) -> dict[NodeName, EngineBuild]:
    return {name: one.engine for name, one in facts.items() if one.engine is not None}
