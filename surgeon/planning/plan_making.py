"""From files and a choice to a plan, for the command line and the daemon alike.

Not here: the arithmetic of budgets and groups (`surgeon.planning.allocation`), the methods (`surgeon.rankings`).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from shared.checkpoints import surgery
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.records import SurgeryPlan
from shared.wire.surgeon_jobs import PlanOptions
from surgeon.observation import statistics as files
from surgeon.planning import allocation
from surgeon.rankings.base import Array, ExpertGroups, Ranking, RankingInputs
from surgeon.rankings.registry import ranking_named


def ranking_inputs(
    statistics: Path | None, model: Path | None, domain_weights: Mapping[str, float] | None
) -> RankingInputs:
    """Return what a method may look at.

    Raises:
        ConfigurationError: neither statistics nor a model, or statistics of another model.
    """
    found = files.load(statistics) if statistics is not None else None
    info = surgery.describe(model) if model is not None else None
    routers = surgery.router_sha256(model) if model is not None else None
    if found is not None:
        seen = found.provenance
        shape = (seen.n_layers, seen.n_experts)
        if info is not None and (info.n_layers, info.n_experts) != shape:
            raise ConfigurationError(
                f"the statistics are of {shape[0]} layers of {shape[1]} experts,"
                f" the model has {info.n_layers} of {info.n_experts}",
                where=str(statistics),
            )
        if routers is not None and seen.router_sha256 not in (None, routers):
            raise ConfigurationError("the statistics are of another model", where=str(statistics))
        active, routers = seen.experts_per_token, routers or seen.router_sha256
        groups = (seen.expert_groups or 0, seen.expert_groups_used or 0)
    elif info is not None:
        groups = (info.expert_groups, info.expert_groups_used)
        shape, active = (info.n_layers, info.n_experts), info.experts_per_token
    else:
        raise ConfigurationError("neither statistics nor a model", hint="give --statistics or --model")
    in_groups = ExpertGroups(*groups) if groups[0] else None
    return RankingInputs(*shape, found, domain_weights or None, model, active, routers, in_groups)


def saliency_of(ranking: Ranking, inputs: RankingInputs) -> Array:
    """Return how much each expert matters [layer, expert], all of them numbers.

    Raises:
        ConfigurationError: the method needs what is not given.
        DataError: a value is no number, or they are not those of this model; layer and expert are named.
    """
    values = ranking.saliency(inputs)
    if values.shape != (inputs.n_layers, inputs.n_experts):
        raise DataError(f"method {ranking.name} ranks {values.shape}, not {inputs.n_layers} x {inputs.n_experts}")
    if len(wrong := np.argwhere(~np.isfinite(values))):
        layer, expert = (int(place) for place in wrong[0])
        raise DataError(
            f"method {ranking.name} gives {values[layer, expert]} for layer {layer}, expert {expert}",
            hint="the statistics or the model are damaged: observe again, or get the model again",
        )
    return values


def make_plan(
    choice: PlanOptions, inputs: RankingInputs, *, base_sha256: str | None, statistics_sha256: str | None
) -> SurgeryPlan:
    """Rank the experts and keep the best.

    Raises:
        ConfigurationError: an impossible plan, for example fewer experts left than are active per token.
    """
    ranking = ranking_named(choice.method, choice.parameters, seed=choice.seed)
    values = saliency_of(ranking, inputs)
    budget, parameters = _budget(choice, values)
    parameters |= ranking.model_dump()
    parameters |= {f"domain.{name}": weight for name, weight in (choice.domain_weights or {}).items()}
    protected = allocation.protected_experts(choice.protect, *values.shape)
    parameters |= {f"protect.{layer}": ",".join(map(str, experts)) for layer, experts in choice.protect.items()}
    if choice.protect_super:
        parameters["protect_super"] = True
        outstanding = allocation.super_experts(inputs.total("norm_max"))
        protected = [one | other for one, other in zip(protected, outstanding, strict=True)]
    plan = allocation.make_plan(
        values, budget, method=choice.method, layout=choice.layout, experts_per_token=choice.experts_per_token,
        protected=protected, parameters=parameters, base_sha256=base_sha256, statistics_sha256=statistics_sha256,
        router_sha256=inputs.router_sha256, groups=inputs.groups,
        active=choice.experts_per_token or inputs.experts_per_token,
    )  # fmt: skip
    fewest, active = min(map(len, plan.kept)), choice.experts_per_token or inputs.experts_per_token
    if fewest < active:
        raise ConfigurationError(
            f"{fewest} experts would be left, but {active} are active per token",
            hint="drop fewer, or lower experts_per_token",
        )
    return plan


def _budget(choice: PlanOptions, values: Array) -> tuple[list[int], dict[str, str | int | float | bool]]:
    """Return how many experts each layer keeps, and how that is written into the plan."""
    n_layers, n_experts = values.shape
    if choice.keep is not None:
        if len(choice.keep) != n_layers:
            raise ConfigurationError(f"numbers to keep for {len(choice.keep)} layers, the model has {n_layers}")
        return list(choice.keep), {"keep": ",".join(map(str, choice.keep))}
    depth = choice.depth or 0
    layers = allocation.layers_of(choice.group, n_layers)
    group = choice.group if isinstance(choice.group, str) else ",".join(map(str, choice.group))
    parameters: dict[str, str | int | float | bool] = {"depth": depth, "group": group}
    if choice.budget == "uniform":
        return allocation.uniform_budget(n_layers, n_experts, layers, depth), parameters
    parameters |= {"budget": choice.budget, "fewest": choice.fewest}
    total = (n_experts - depth) * len(layers)
    return allocation.bisected_budget(values, layers, total, fewest=choice.fewest), parameters
