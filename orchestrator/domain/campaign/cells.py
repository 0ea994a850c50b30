"""Ids of variants in the matrix: what `drop4_late` and `drop25pct_all` mean on a model of a given shape.

    baseline                nothing is done
    baseline_biased         the control: the unpruned model in the layout `biased`
    dropN_GROUP             N experts fewer in each layer of the group
    dropPpct_GROUP          the same as a share of the model's experts, rounded half up: 25 % of 10 are 3

GROUP is all, early (first quarter of the layers), middle (the half between) or late (last quarter). A percentage is
only a way of writing: the id that stands in files has the number, so that synonyms are one configuration.
"""

import re
from dataclasses import dataclass
from typing import Final

from pydantic import Field

from shared.kernel.errors import ConfigurationError
from shared.kernel.records import LayerGroup, Layout, Record

BASELINE = "baseline"
CONTROL = "baseline_biased"
GROUPS: tuple[LayerGroup, ...] = ("all", "early", "middle", "late")
PAPER_GROUPS: tuple[LayerGroup, ...] = ("all", "early", "late")
_CELL: Final = re.compile(
    r"drop(?P<amount>[1-9][0-9]{0,3})(?P<percent>pct)?_(?P<group>all|early|middle|late)\Z", re.ASCII
)


class ModelShape(Record):
    """What must be known of a model to say what can be cut from it."""

    n_layers: int = Field(ge=1, le=4096, description="layers with experts")
    n_experts: int = Field(ge=1, le=4096, description="in each layer")
    experts_per_token: int = Field(ge=1, le=4096, description="the model's own K")
    architecture: str = Field(default="", description="llama.cpp's name of it")
    n_kv_heads: int | None = Field(default=None, ge=1, le=4096, description="bounds the nodes of some engines")


class ShapeUnknownError(ConfigurationError):
    """What was written means something only together with the model's shape, which is not known here."""


@dataclass(frozen=True)
class Cell:
    """One variant of the matrix."""

    id: str
    depth: int
    group: LayerGroup
    layout: Layout


def is_reserved(name: str) -> bool:
    """Tell whether a name means something in the matrix, so that no named variant may have it."""
    return name in ("all", BASELINE, CONTROL) or _CELL.match(name) is not None


def layout_of(group: LayerGroup) -> Layout:
    """Return the layout of a variant: where layers keep different numbers, `biased` is needed."""
    return "uniform" if group == "all" else "biased"


def share_of(percent: int, n_experts: int) -> int:
    """Return a percentage of the experts, rounded half up, at least one."""
    return max((2 * percent * n_experts + 100) // 200, 1)


def experts_to_drop(drop: int | str, shape: ModelShape | None, where: str) -> int:
    """Return a number of experts, given as such or as a percentage like "25%".

    Raises:
        ShapeUnknownError: a percentage of a model of which nothing is known.
    """
    if isinstance(drop, int):
        return drop
    if shape is None:
        raise ShapeUnknownError(
            f"{drop} of how many experts? The model's shape is not known here", where=where,
            hint="give [model_shape] n_layers, n_experts and experts_per_token, or check against the lab",
        )  # fmt: skip
    return share_of(int(drop.rstrip("%")), shape.n_experts)


def cell(name: str, shape: ModelShape | None, max_depth: int | None) -> Cell | None:
    """Return what an id means; None where it is no id of the matrix.

    Raises:
        ConfigurationError: more experts than the model has, than can be missed, or than the spec's version allows; a
            percentage of a model of which nothing is known; a group without layers.
    """
    if name in (BASELINE, CONTROL):
        return Cell(name, 0, "all", "uniform" if name == BASELINE else "biased")
    match = _CELL.match(name)
    if match is None:
        return None
    amount = int(match["amount"])
    group = next(group for group in GROUPS if group == match["group"])
    if match["percent"] and amount > 99:
        raise ConfigurationError("a percentage is 1..99", where=f"configurations: {name}")
    depth = experts_to_drop(f"{amount}%" if match["percent"] else amount, shape, f"configurations: {name}")
    if max_depth is not None and depth > max_depth:
        raise ConfigurationError(
            f"a spec of version 1 drops at most {max_depth} experts in a layer", where=f"configurations: {name}",
            hint="set schema_version = 2 for any depth",
        )  # fmt: skip
    if shape is not None and group == "middle" and shape.n_layers < 3:
        raise ConfigurationError(
            f"a model of {shape.n_layers} layers has no middle", where=f"configurations: {name}", hint="use all"
        )
    return Cell(f"drop{depth}_{group}", depth, group, layout_of(group))


def check_depth(depth: int, experts_per_token: int | None, shape: ModelShape | None, where: str) -> None:
    """Refuse to leave fewer experts than a token uses.

    Raises:
        ConfigurationError: says how many can be dropped at most.
    """
    if shape is None or not depth:
        return
    active = experts_per_token or shape.experts_per_token
    most = shape.n_experts - active
    if depth > most:
        raise ConfigurationError(
            f"dropping {depth} of {shape.n_experts} experts leaves {max(shape.n_experts - depth, 0)}, but {active} are"
            f" active per token", where=where, hint=f"drop at most {most}, or serve it with fewer active experts (.k1)",
        )  # fmt: skip
