"""Which nodes and which engine a configuration runs on, and whether it can: all that is checked before a window opens.

An engine without log-probabilities is scored by llama.cpp on the same plan of the same quantisation.

Not here: starting anything (`attempt`).
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.campaign.lab import Lab
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import Configuration, EngineName, NodeName
from shared.wire.engines.registry import ENGINES, SCORING_ENGINE
from shared.wire.node_jobs.engines import EngineInfo


@dataclass(frozen=True)
class ModelFacts:
    """What of a base model bounds where it can run."""

    name: str
    no_surgery: str
    """Why it can only be measured as it is; "" where it can be cut."""
    n_kv_heads: int | None
    """Bounds the nodes of some engines; None where the file does not say."""


def nodes_of(configuration: Configuration, lab_nodes: Sequence[str]) -> tuple[str, ...]:
    """Return the nodes in use, the root first.

    Raises:
        ConfigurationError: the lab has fewer, or does not know one.
    """
    if unknown := [name for name in configuration.nodes if name not in lab_nodes]:
        raise ConfigurationError(
            f"the lab has no node {', '.join(unknown)}", where=configuration.id, hint=f"it has {', '.join(lab_nodes)}"
        )
    if configuration.nodes:
        return configuration.nodes
    wanted = configuration.n_nodes or len(lab_nodes)
    if wanted > len(lab_nodes):
        raise ConfigurationError(
            f"{wanted} nodes are asked for, the lab has {len(lab_nodes)}", where=configuration.id,
            hint="choose fewer nodes",
        )  # fmt: skip
    return tuple(lab_nodes[:wanted])


def roots_of(configurations: Sequence[Configuration], lab_nodes: Sequence[str]) -> list[str]:
    """Return the nodes that read model files, each once."""
    return list(dict.fromkeys(nodes_of(one, lab_nodes)[0] for one in configurations))


def workers_of(engine: EngineName, nodes: Sequence[str]) -> tuple[str, ...]:
    """Return the nodes that run a worker: with some engines the root takes part without one."""
    described = ENGINES.get(engine)
    if not described.distributed:
        return ()
    return tuple(nodes) if described.root_has_worker else tuple(nodes[1:])


def scorer_of(engine: EngineName) -> EngineName:
    """Return the engine that answers the benchmark's questions: itself, if its answers may be judged."""
    described = ENGINES.get(engine)
    return engine if described.score and described.generate else SCORING_ENGINE


def engines_of(configuration: Configuration) -> tuple[EngineName, ...]:
    """Return the engines a run needs: the one that is measured, and the one that scores."""
    return tuple(dict.fromkeys((configuration.engine, scorer_of(configuration.engine))))


def check_fit(configuration: Configuration, model: ModelFacts, n_nodes: int) -> None:
    """Refuse what can never run.

    Raises:
        ConfigurationError: a model that cannot be cut, or a number of nodes that the engine cannot use.
    """
    changed = configuration.depth or configuration.layout == "biased" or configuration.experts_per_token
    if model.no_surgery and changed:
        raise ConfigurationError(
            f"{model.name} can only be measured as it is: {model.no_surgery}", where=configuration.id,
            hint="measure `baseline`, also on other nodes or in another quantisation",
        )  # fmt: skip
    engine = ENGINES.get(configuration.engine)
    if reason := engine.refuses_nodes(n_nodes, model.n_kv_heads):
        most = engine.most_nodes(n_nodes, model.n_kv_heads)
        raise ConfigurationError(reason, where=configuration.id, hint=f"say {configuration.id}.n{most}")


async def check_engines(lab: Lab, configurations: Sequence[Configuration]) -> dict[EngineName, EngineInfo]:
    """Return what the engines in use can do, when every node that needs one has it.

    Raises:
        ConfigurationError: an engine's program is missing on a node, or cannot do what a configuration asks.
        InfrastructureError: a node does not answer.
    """
    wanted: dict[str, set[EngineName]] = {}
    for configuration in configurations:
        for name in nodes_of(configuration, list(lab.nodes)):
            wanted.setdefault(name, set()).update(engines_of(configuration))
    answers = await asyncio.gather(*(lab.engines(name) for name in wanted))
    known: dict[EngineName, EngineInfo] = {}
    for name, answer in zip(wanted, answers, strict=True):
        known.update(_of_node(name, wanted[name], {info.name: info for info in answer}))
    for configuration in configurations:
        if configuration.layout not in known[configuration.engine].layouts:
            raise ConfigurationError(
                f"{configuration.engine} cannot run the layout {configuration.layout}", where=configuration.id
            )
    return known


def _of_node(
    node: NodeName, wanted: set[EngineName], has: Mapping[EngineName, EngineInfo]
) -> dict[EngineName, EngineInfo]:
    for engine in sorted(wanted):
        if engine not in has or not has[engine].available:
            raise ConfigurationError(
                f"{engine} is not installed on this node", where=node, hint="`epi node engines` tells what it has"
            )
    return {engine: has[engine] for engine in wanted}
