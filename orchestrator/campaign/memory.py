"""The memory of the lab's nodes against what a campaign's configurations take, before the first hour of work.

What does not fit is refused with the bytes that are missing and what would work; `fewest` is answered here. A node or a
surgeon that cannot say is no reason to refuse: the configuration is then not known to fit. Not here: the arithmetic
(`domain.campaign.fit`).
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.campaign.lab import Lab
from orchestrator.campaign.topology import engines_of, nodes_of
from orchestrator.domain.campaign.fit import ConfigurationFit, NodeMemory, fewest, fit_of, question
from orchestrator.domain.campaign.matrix import identity_of, reference_of, written_out
from orchestrator.domain.campaign.schedule import configurations_of
from orchestrator.domain.campaign.spec import CampaignSpec
from shared.kernel.errors import ConfigurationError, EpiError, InfrastructureError, NotFoundError
from shared.kernel.records import Configuration, ConfigurationId, NodeName
from shared.wire.engines.registry import ENGINES
from shared.wire.footprint import Footprint, FootprintAnswer, FootprintParams

log = logging.getLogger(__name__)

Place = tuple[ConfigurationId, tuple[NodeName, ...]]


async def memory_of(lab: Lab) -> dict[NodeName, NodeMemory]:
    """Return what each node that answers has."""
    answers = await asyncio.gather(*(_memory_of(lab, name) for name in lab.nodes))
    return {one.name: one for one in answers if one is not None}


async def _memory_of(lab: Lab, name: NodeName) -> NodeMemory | None:
    try:
        facts = await lab.facts(name)
    except EpiError as error:
        log.warning("the memory of %s is not known: %s", name, error)
        return None
    return NodeMemory(name=name, total_bytes=facts.memory_bytes, usable_bytes=facts.usable_memory_bytes)


class MemoryCheck:
    """What the configurations of one spec take, asked for in as few questions as possible and remembered."""

    def __init__(self, spec: CampaignSpec, lab: Lab, memory: Mapping[NodeName, NodeMemory]) -> None:
        self._spec = spec
        self._lab = lab
        self._memory = memory
        self._known: dict[Place, ConfigurationFit] = {}

    async def on(self, places: Iterable[tuple[Configuration, Sequence[NodeName]]]) -> list[ConfigurationFit]:
        """Return how each configuration fits on the nodes beside it, the root first.

        Raises:
            InfrastructureError: the surgeon does not answer.
        """
        wanted = {(one.id, tuple(nodes)): one for one, nodes in places}
        missing = {place: one for place, one in wanted.items() if place not in self._known}
        questions: dict[Place, list[FootprintParams]] = {}
        bounds: dict[Place, bool] = {}
        for (name, nodes), one in missing.items():
            silent = [node for node in nodes if node not in self._memory]
            if silent:
                problem = f"{silent[0]} does not say what memory it has"
                self._known[name, nodes] = ConfigurationFit(configuration=name, problem=problem)
                continue
            totals = [self._memory[node].total_bytes for node in nodes]
            try:
                asked = [question(one, self._spec, engine, totals) for engine in engines_of(one)]
            except ConfigurationError as error:
                self._known[name, nodes] = ConfigurationFit(configuration=name, problem=error.message)
                continue
            questions[name, nodes] = [params for params, _ in asked]
            bounds[name, nodes] = any(bound for _, bound in asked)
        answers = await self._ask([params for each in questions.values() for params in each])
        for place, each in questions.items():
            found, answers = answers[: len(each)], answers[len(each) :]
            self._known[place] = self._fit(place, found, at_most=bounds[place])
        return [self._known[place] for place in wanted]

    def _fit(self, place: Place, answers: Sequence[FootprintAnswer], *, at_most: bool) -> ConfigurationFit:
        name, nodes = place
        footprints: list[Footprint] = []
        for answer in answers:
            if answer.footprint is None:
                return ConfigurationFit(configuration=name, problem=answer.problem)
            footprints.append(answer.footprint)
        return fit_of(name, [self._memory[node] for node in nodes], footprints, at_most=at_most)

    async def _ask(self, items: list[FootprintParams]) -> list[FootprintAnswer]:
        if not items:
            return []
        try:
            return list(await self._lab.footprints(items))
        except NotFoundError:
            problem = "the surgeon is of a version that does not calculate memory"
        except InfrastructureError:
            raise
        except EpiError as error:
            problem = error.message
        log.warning("what configurations take in memory is not known: %s", problem)
        return [FootprintAnswer(problem=problem)] * len(items)


async def fits_of(spec: CampaignSpec, lab: Lab) -> tuple[ConfigurationFit, ...]:
    """Return how each configuration of a spec that was admitted fits on the nodes it is served on."""
    check = MemoryCheck(spec, lab, await memory_of(lab))
    names = list(lab.nodes)
    return tuple(await check.on([(one, nodes_of(one, names)) for one in configurations_of(spec)]))


def check_fits(fits: Iterable[ConfigurationFit]) -> None:
    """Refuse what does not fit when a campaign is set running: nodes have changed, or could not be asked before.

    Raises:
        ConfigurationError: names the first, and what is missing.
    """
    if bad := [fit for fit in fits if not fit.fits]:
        raise ConfigurationError(
            f"{len(bad)} configuration(s) do not fit into the nodes' memory, first: {bad[0].reason()}",
            where=f"configurations: {bad[0].configuration}",
            hint="give the nodes what they had, or make a campaign of what fits: `epi campaign validate --lab`",
        )  # fmt: skip


async def fitted(spec: CampaignSpec, lab: Lab) -> CampaignSpec:
    """Return the spec with `fewest` answered and, with `skip_impossible`, what does not fit left out.

    Raises:
        ConfigurationError: a configuration that its nodes' memory cannot hold.
        InfrastructureError: the surgeon does not answer, or `fewest` cannot be answered now.
    """
    check = MemoryCheck(spec, lab, await memory_of(lab))
    names = list(lab.nodes)
    found = configurations_of(spec)
    counts: dict[str, int] = {}
    refused: dict[ConfigurationId, str] = {}
    by_count = {one.id: await _on_each_count(one, spec, check, names) for one in found if one.fewest}
    for name, fits in by_count.items():
        chosen = fewest(fits)
        if chosen is not None:
            counts[name] = chosen
        elif unknown := next((fit.problem for fit in fits.values() if fit.problem), ""):
            raise InfrastructureError(
                f"on how few nodes {name} fits cannot be said: {unknown}", where=f"configurations: {name}",
                hint="say n1, n2, ... instead of fewest, or try again when all nodes answer",
            )  # fmt: skip
        else:
            refused[name] = fits[max(fits)].reason()
    fixed = [one for one in found if not one.fewest]
    for one, fit in zip(fixed, await check.on([(one, nodes_of(one, names)) for one in fixed]), strict=True):
        if not fit.fits:
            fits = await _on_each_count(one, spec, check, names) if not one.nodes else {}
            others = [n for n, other in sorted(fits.items()) if other.nodes and other.fits]
            refused[one.id] = fit.reason() + (f"; it fits on n{', n'.join(map(str, others))}" if others else "")
    answered = spec.model_copy(update={"fewest_nodes": counts or None})
    return _without(answered, refused) if refused else answered


async def _on_each_count(
    one: Configuration, spec: CampaignSpec, check: MemoryCheck, names: list[NodeName]
) -> dict[int, ConfigurationFit]:
    engine, heads = ENGINES.get(one.engine), spec.model_shape.n_kv_heads if spec.model_shape else None
    counts = [n for n in range(1, len(names) + 1) if not engine.refuses_nodes(n, heads)]
    return dict(zip(counts, await check.on([(one, names[:n]) for n in counts]), strict=True))


def _without(spec: CampaignSpec, refused: Mapping[ConfigurationId, str]) -> CampaignSpec:
    """Leave out what needs a configuration that does not fit, itself or as its reference."""
    usual = spec.usual()
    found = {one.id: one for one in configurations_of(spec)}
    impossible: dict[str, str] = {}
    for name in written_out(spec.selection):
        if name in usual.left_out:
            continue
        own = needed = identity_of(name, usual)
        while needed not in refused and reference_of(found[needed]) != needed:
            needed = reference_of(found[needed])
        if needed in refused:
            what = "" if needed == own else f"it is compared with {needed}, which "
            impossible[name] = what + refused[needed]
    if not spec.skip_impossible:
        name, reason = next(iter(impossible.items()))
        raise ConfigurationError(
            f"{len(impossible)} configuration(s) do not fit into the nodes' memory, first: {reason}",
            where=f"configurations: {name}",
            hint="serve it on more nodes (.n2) or on the fewest that hold it (.fewest), drop more experts, choose fewer"
            " bits, or set skip_impossible = true; a reference of one's own is named under references",
        )  # fmt: skip
    admitted = spec.model_copy(update={"left_out": {**(spec.left_out or {}), **impossible}})
    configurations_of(admitted)
    return admitted
