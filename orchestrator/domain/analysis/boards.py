"""What a configuration that is served on fewer boards saves: the boards that it frees are powered off, or stay idle.

Both are told, since they are different things: off, only the boards in use count, as everywhere else in the results;
idle, the freed boards' idle power is added, as other runs of the same campaign measured it.
"""

from collections.abc import Mapping, Sequence
from statistics import median

from pydantic import Field

from orchestrator.domain.campaign.matrix import reference_of
from orchestrator.domain.run.evaluate import RunEvaluation
from shared.kernel.records import Configuration, ConfigurationId, NodeName, Record


class BoardUse(Record):
    """One configuration; joules per token and EPI are medians over repetitions."""

    configuration: ConfigurationId
    nodes: tuple[NodeName, ...] = Field(description="in use")
    freed: tuple[NodeName, ...] = Field(description="of the campaign's nodes those that are not")
    joules_per_token: float | None = Field(description="of the boards in use: the others are powered off")
    joules_per_token_idle: float | None = Field(description="with the freed boards left idle; null: not measured")
    epi: float | None
    epi_idle: float | None
    freed_idle_watts: float | None = Field(description="what the freed boards draw together when idle")


class BoardSaving(Record):
    """One configuration that uses fewer boards than its reference, as shares of the reference: below 1 it saves."""

    use: BoardUse
    reference: BoardUse
    joules_off: float | None
    joules_idle: float | None
    epi_off: float | None
    epi_idle: float | None


def board_uses(
    configurations: Sequence[Configuration],
    nodes_of: Mapping[ConfigurationId, tuple[NodeName, ...]],
    runs: Mapping[ConfigurationId, Sequence[RunEvaluation]],
) -> tuple[BoardUse, ...]:
    """Return how each configuration that was measured uses the campaign's boards, in their order."""
    everybody = tuple(dict.fromkeys(node for nodes in nodes_of.values() for node in nodes))
    idle = _idle_watts(runs)
    return tuple(
        _use(item.id, nodes_of[item.id], everybody, runs[item.id], idle)
        for item in configurations
        if runs.get(item.id) and item.id in nodes_of
    )


def board_savings(configurations: Sequence[Configuration], uses: Sequence[BoardUse]) -> tuple[BoardSaving, ...]:
    """Return what each configuration on fewer boards than its reference saves."""
    by_id = {use.configuration: use for use in uses}
    found = []
    for item in configurations:
        use, reference = by_id.get(item.id), by_id.get(reference_of(item))
        if use is not None and reference is not None and len(use.nodes) < len(reference.nodes):
            found.append(_saving(use, reference))
    return tuple(found)


def _use(
    name: ConfigurationId, nodes: tuple[NodeName, ...], everybody: Sequence[NodeName], runs: Sequence[RunEvaluation],
    idle: Mapping[NodeName, float],
) -> BoardUse:  # fmt: skip
    freed = tuple(node for node in everybody if node not in nodes)
    per_token = _median([run.epi.joules_per_token for run in runs])
    epi = _median([run.epi.value for run in runs])
    seconds = _median([
        run.headline.duration_seconds / run.total_tokens if run.headline and run.total_tokens else None for run in runs
    ])  # fmt: skip
    watts = sum(idle[node] for node in freed) if all(node in idle for node in freed) else None
    with_idle = None if per_token is None or seconds is None or watts is None else per_token + watts * seconds
    return BoardUse(
        configuration=name, nodes=nodes, freed=freed, joules_per_token=per_token, joules_per_token_idle=with_idle,
        epi=epi, epi_idle=None if epi is None or not per_token or with_idle is None else epi * with_idle / per_token,
        freed_idle_watts=watts,
    )  # fmt: skip


def _saving(use: BoardUse, reference: BoardUse) -> BoardSaving:
    return BoardSaving(
        use=use, reference=reference,
        joules_off=_share(use.joules_per_token, reference.joules_per_token),
        joules_idle=_share(use.joules_per_token_idle, reference.joules_per_token_idle),
        epi_off=_share(use.epi, reference.epi), epi_idle=_share(use.epi_idle, reference.epi_idle),
    )  # fmt: skip


def _idle_watts(runs: Mapping[ConfigurationId, Sequence[RunEvaluation]]) -> dict[NodeName, float]:
    """Return each node's idle power as the runs that used it measured it, medians."""
    found: dict[NodeName, list[float]] = {}
    for group in runs.values():
        for run in group:
            for node, watts in (run.idle_watts or {}).items():
                found.setdefault(node, []).append(watts)
    return {node: median(watts) for node, watts in found.items()}


def _share(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else value / reference


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
