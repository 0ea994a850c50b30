"""From saliency to a plan: which layers are cut, how many experts each keeps, which are protected.

Not here: the methods (`surgeon.rankings`), applying a plan (`shared.checkpoints.surgery`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from shared.kernel.defects import first_defect
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import LayerGroup, Layout, SurgeryPlan
from surgeon.kinds.experts_per_token import ExpertsPerToken
from surgeon.kinds.plan import PlanPart, plan_of
from surgeon.kinds.prune_experts import PruneExperts
from surgeon.rankings.base import ExpertGroups

Array = npt.NDArray[np.float64]
GROUP_SHARE: Final = 4
"""`early` and `late` are a quarter of the layers each."""


def layers_of(group: LayerGroup | Sequence[int], n_layers: int) -> tuple[int, ...]:
    """Return the layers of a group, ascending.

    `early` is the first quarter and `late` the last, rounded down but at least one layer: 48 layers give 12, 6 give 1,
    7 give 1, 3 give 1; `middle` is what lies between, about twice as many. A sequence of layer numbers is taken as it
    is.

    Raises:
        ConfigurationError: a layer number that does not exist, or one twice.
    """
    quarter = max(n_layers // GROUP_SHARE, 1)
    if group == "all":
        return tuple(range(n_layers))
    if group == "early":
        return tuple(range(quarter))
    if group == "late":
        return tuple(range(n_layers - quarter, n_layers))
    if group == "middle":
        if n_layers < 3:
            raise ConfigurationError(f"a model of {n_layers} layers has no middle", hint="use all")
        return tuple(range(quarter, n_layers - quarter))
    numbers = tuple(sorted(int(number) for number in group))
    if len(set(numbers)) != len(numbers) or any(not 0 <= number < n_layers for number in numbers):
        raise ConfigurationError(f"bad list of layers {list(numbers)}", hint=f"the layers are 0..{n_layers - 1}")
    return numbers


def super_experts(norm_max: Array, *, times_median: float = 10.0, share: float = 0.1) -> list[set[int]]:
    """Return per layer the experts whose largest output stands out; dropping one of them ruins the model.

    An expert is one if its largest output norm is over `times_median` medians of all experts of the model and over
    `share` of the largest of all. Source of the idea: Su et al., "Unveiling Super Experts", arXiv 2507.23279, which
    compares with the 99.5th percentile and a tenth of the maximum; the median is used here so that small models with
    few experts have a threshold as well.
    """
    threshold = max(times_median * float(np.median(norm_max)), share * float(norm_max.max(initial=0.0)))
    return [set(np.flatnonzero(row > threshold).tolist()) for row in norm_max]


def protected_experts(protect: Mapping[str, Sequence[int]], n_layers: int, n_experts: int) -> list[set[int]]:
    """Return per layer the experts that are never dropped; the key `all` means every layer.

    Raises:
        ConfigurationError: a layer or an expert that does not exist.
    """
    result: list[set[int]] = [set() for _ in range(n_layers)]
    for layer, experts in protect.items():
        if layer != "all" and not (layer.isdecimal() and int(layer) < n_layers):
            raise ConfigurationError(f"no layer {layer!r}", where="protect", hint=f"0..{n_layers - 1}, or all")
        if bad := [expert for expert in experts if not 0 <= expert < n_experts]:
            raise ConfigurationError(f"no expert {bad[0]}", where=f"protect.{layer}", hint=f"0..{n_experts - 1}")
        for row in result if layer == "all" else [result[int(layer)]]:
            row.update(experts)
    return result


def uniform_budget(n_layers: int, n_experts: int, layers: Sequence[int], depth: int) -> list[int]:
    """Return how many experts each layer keeps when `depth` are dropped in each of `layers`."""
    cut = set(layers)
    return [n_experts - depth if layer in cut else n_experts for layer in range(n_layers)]


def bisected_budget(
    saliency: Array, layers: Sequence[int], kept_total: int, *, fewest: int, most: int | None = None
) -> list[int]:
    """Return per-layer budgets that sum to `kept_total` over `layers` and retain about the same share of saliency each.

    The share f is found by bisection: each layer keeps the smallest number of its most salient experts that hold at
    least f of the layer's saliency, within [fewest, most]. What is left over or missing after the bisection goes to
    the layers where one more expert holds most, or is taken where it holds least.

    Raises:
        ConfigurationError: the bounds leave no way to keep `kept_total`, or a negative saliency (no share exists).
    """
    n_experts = saliency.shape[1]
    most = n_experts if most is None else most
    if not fewest * len(layers) <= kept_total <= most * len(layers) or not 1 <= fewest <= most <= n_experts:
        raise ConfigurationError(
            f"{kept_total} experts cannot be kept in {len(layers)} layers with {fewest}..{most} in each"
        )
    rows = np.sort(saliency[list(layers)], axis=1)[:, ::-1]
    if rows.min() < 0:
        raise ConfigurationError("shares of a negative saliency mean nothing", hint="use the uniform budget")
    shares = np.cumsum(rows, axis=1) / np.maximum(rows.sum(axis=1, keepdims=True), np.finfo(float).tiny)

    def budgets(fraction: float) -> npt.NDArray[np.int64]:
        needed = (shares < fraction - 1e-12).sum(axis=1) + 1
        return np.asarray(np.clip(needed, fewest, most), np.int64)

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if int(budgets(middle).sum()) <= kept_total:
            low = middle
        else:
            high = middle
    result = budgets(low)
    gains = np.diff(shares, axis=1, prepend=0.0)
    while (missing := kept_total - int(result.sum())) != 0:
        if missing > 0:
            gain = [gains[row, n] if n < most else -1.0 for row, n in enumerate(result)]
            result[int(np.argmax(gain))] += 1
        else:
            loss = [gains[row, n - 1] if n > fewest else np.inf for row, n in enumerate(result)]
            result[int(np.argmin(loss))] -= 1
    full = [n_experts] * len(saliency)
    for layer, number in zip(layers, result.tolist(), strict=True):
        full[layer] = number
    return full


def _share(count: int, groups: ExpertGroups, layer: int) -> int:
    if count % groups.count:
        raise ConfigurationError(
            f"{count} experts cannot be kept equally in {groups.count} groups", where=f"layer {layer}",
            hint=f"drop a multiple of {groups.count}",
        )  # fmt: skip
    return count // groups.count


def _by_group(order: Sequence[int], groups: ExpertGroups, each: int) -> list[int]:
    """Return the experts with the first `each` of every group before all others, in the same order otherwise."""
    taken = [0] * groups.count
    first: list[int] = []
    others: list[int] = []
    for expert in order:
        group = groups.of(expert, len(order))
        (first if taken[group] < each else others).append(expert)
        taken[group] += 1
    return first + others


def make_plan(
    saliency: Array,
    budget: Sequence[int],
    *,
    method: str,
    layout: Layout = "uniform",
    experts_per_token: int | None = None,
    protected: Sequence[set[int]] | None = None,
    parameters: Mapping[str, Any] | None = None,
    base_sha256: str | None = None,
    statistics_sha256: str | None = None,
    router_sha256: str | None = None,
    groups: ExpertGroups | None = None,
    active: int = 1,
) -> SurgeryPlan:
    """Keep the `budget[layer]` most salient experts of each layer; ties keep the lower id; protected ones always stay.

    Where experts are in groups, `uniform` keeps the most salient of each group, equally many, and `biased` at least as
    many of each as a token of `active` experts needs.

    Raises:
        ConfigurationError: an impossible budget: nothing left, more protected than kept, unequal in `uniform`, or one
            that groups cannot share.
    """
    kept: list[tuple[int, ...]] = []
    for layer, (row, count) in enumerate(zip(saliency, budget, strict=True)):
        safe = protected[layer] if protected is not None else set[int]()
        if not 1 <= count <= len(row):
            raise ConfigurationError(
                f"{count} of {len(row)} experts would be left", where=f"layer {layer}", hint="drop fewer"
            )
        if len(safe) > count:
            raise ConfigurationError(f"{len(safe)} experts are protected, {count} are kept", where=f"layer {layer}")
        order = sorted(range(len(row)), key=lambda expert: (expert not in safe, -row[expert], expert))
        if groups is not None:
            each = groups.fewest(active) if layout == "biased" else _share(count, groups, layer)
            order = _by_group(order, groups, each)
        kept.append(tuple(sorted(order[:count])))
    parts: list[PlanPart] = [PruneExperts(
        n_experts=saliency.shape[1], kept=tuple(kept), layout=layout, method=method, parameters=dict(parameters or {}),
        base_sha256=base_sha256, statistics_sha256=statistics_sha256, router_sha256=router_sha256,
    )]  # fmt: skip
    if experts_per_token is not None:
        parts.append(ExpertsPerToken(k=experts_per_token))
    try:
        return plan_of(parts, *saliency.shape)
    except ValidationError as error:
        raise ConfigurationError(first_defect(error).reason, hint="use the layout 'biased'") from error
