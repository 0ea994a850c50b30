"""The campaign's matrix: which configurations exist, how a selection is written, which baseline each is compared with.

Not here: which experts a configuration drops (the surgeon's plan) and how it is run (`orchestrator.campaign`).
"""

import re
from collections.abc import Iterable
from typing import Literal

from orchestrator.domain.records import MatrixOptions
from shared.errors import ConfigurationError
from shared.records import Configuration, LayerGroup, Layout

BASELINE = "baseline"
CONTROL = "baseline_biased"
MAX_DEPTH = 8
GROUPS: tuple[LayerGroup, ...] = ("all", "early", "late")
_VARIANT = re.compile(r"drop(?P<depth>[1-9][0-9]?)_(?P<group>all|early|late)\Z")


def layout_of(group: LayerGroup) -> Layout:
    """Return the layout of a variant: early and late keep different numbers per layer, which needs `biased`."""
    return "uniform" if group == "all" else "biased"


def baseline(layout: Layout = "uniform", options: MatrixOptions | None = None) -> Configuration:
    """Return the unpruned configuration of a layout: `baseline`, or the control `baseline_biased`."""
    return _configuration(BASELINE if layout == "uniform" else CONTROL, 0, "all", layout, options or MatrixOptions())


def full_matrix(options: MatrixOptions | None = None, *, max_depth: int = MAX_DEPTH) -> tuple[Configuration, ...]:
    """Return the 25 configurations of the seed and the control, baselines first, then by depth and group.

    Args:
        options: what all configurations share.
        max_depth: largest number of experts dropped in each layer of the group.

    Raises:
        ConfigurationError: the engine cannot run the biased layout.
    """
    chosen = options or MatrixOptions()
    _check_engine(chosen, "biased")
    variants = (variant(depth, group, chosen) for depth in range(1, max_depth + 1) for group in GROUPS)
    return (baseline("uniform", chosen), baseline("biased", chosen), *variants)


def variant(depth: int, group: LayerGroup, options: MatrixOptions | None = None) -> Configuration:
    """Return `drop<depth>_<group>`."""
    return _configuration(f"drop{depth}_{group}", depth, group, layout_of(group), options or MatrixOptions())


def parse_selection(
    text: str, options: MatrixOptions | None = None, *, max_depth: int = MAX_DEPTH
) -> tuple[Configuration, ...]:
    """Return the configurations named in `text` (comma separated, or `all`), in matrix order, without repeats.

    The baseline of every layout that occurs comes along unasked, since a variant means nothing without it.

    Raises:
        ConfigurationError: an id that the matrix does not hold, an empty selection, or a layout the engine cannot run.
    """
    chosen = options or MatrixOptions()
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return full_matrix(chosen, max_depth=max_depth)
    if not names:
        raise ConfigurationError("no configuration is selected", where="configs", hint="for example baseline,drop4_all")
    wanted = [_parse(name, chosen, max_depth) for name in names]
    layouts = {configuration.layout for configuration in wanted}
    for layout in layouts:
        _check_engine(chosen, layout)
    wanted += [baseline(layout, chosen) for layout in layouts]
    return in_matrix_order(wanted)


def in_matrix_order(configurations: Iterable[Configuration]) -> tuple[Configuration, ...]:
    """Return the configurations once each: baselines first, then by depth, group and id."""
    unique = {configuration.id: configuration for configuration in configurations}
    return tuple(
        sorted(unique.values(), key=lambda c: (c.depth, GROUPS.index(c.group), c.layout != "uniform", c.id))
    )


def reference_of(configuration: Configuration) -> str:
    """Return the id of the baseline of the configuration's own layout.

    The biased layout costs speed of its own, so a biased variant is never compared with the uniform baseline.
    """
    return BASELINE if configuration.layout == "uniform" else CONTROL


def _parse(name: str, options: MatrixOptions, max_depth: int) -> Configuration:
    if name in (BASELINE, CONTROL):
        return baseline("uniform" if name == BASELINE else "biased", options)
    match = _VARIANT.match(name)
    if match is None or int(match["depth"]) > max_depth:
        raise ConfigurationError(
            "unknown configuration", where=f"configs: {name}",
            hint=f"known: {BASELINE}, {CONTROL}, dropN_all, dropN_early, dropN_late with N in 1..{max_depth}",
        )  # fmt: skip
    group: LayerGroup = next(group for group in GROUPS if group == match["group"])
    return variant(int(match["depth"]), group, options)


def _check_engine(options: MatrixOptions, layout: Literal["uniform", "biased"]) -> None:
    if layout == "biased" and options.engine != "llama.cpp":
        raise ConfigurationError(
            f"{options.engine} has no expert bias, so early and late variants cannot run on it",
            where="configs", hint="use the engine llama.cpp, or only dropN_all variants",
        )  # fmt: skip


def _configuration(
    identity: str, depth: int, group: LayerGroup, layout: Layout, options: MatrixOptions
) -> Configuration:
    return Configuration(
        id=identity,
        depth=depth,
        group=group,
        layout=layout,
        method=options.method if depth else "none",
        quantization=options.quantization,
        experts_per_token=options.experts_per_token,
        n_nodes=options.n_nodes,
        engine=options.engine,
    )
