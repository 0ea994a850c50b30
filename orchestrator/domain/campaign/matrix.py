"""The campaign's matrix: which configurations exist, how a selection is written, which baseline each is compared with.

A configuration is a variant (what is done to the model), and after a dot its serving where that is not the usual one:
`drop4_all`, `drop4_all.n2`, `baseline.q8_0.k4`, `all.dllama`.

Not here: which experts a configuration drops (the surgeon's plan), servings (`serving`), and how it is run
(`orchestrator.campaign`).
"""

import re
from collections.abc import Iterable

from orchestrator.domain.campaign.serving import MatrixOptions, served, tags_of
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import Configuration, LayerGroup, Layout
from shared.wire.engines.registry import ENGINES

BASELINE = "baseline"
CONTROL = "baseline_biased"
MAX_DEPTH = 8
GROUPS: tuple[LayerGroup, ...] = ("all", "early", "late")
_VARIANT = re.compile(r"drop(?P<depth>[1-9][0-9]?)_(?P<group>all|early|late)\Z")


def layout_of(group: LayerGroup) -> Layout:
    """Return the layout of a variant: early and late keep different numbers per layer, which needs `biased`."""
    return "uniform" if group == "all" else "biased"


def full_matrix(options: MatrixOptions | None = None, *, max_depth: int = MAX_DEPTH) -> tuple[Configuration, ...]:
    """Return the 25 configurations of the paper and the control, baselines first, then by depth and group.

    Args:
        options: the usual serving.
        max_depth: largest number of experts dropped in each layer of the group.

    Raises:
        ConfigurationError: the engine cannot run the biased layout.
    """
    return parse_selection("all", options, max_depth=max_depth)


def parse_selection(
    text: str, options: MatrixOptions | None = None, *, max_depth: int = MAX_DEPTH
) -> tuple[Configuration, ...]:
    """Return the configurations named in `text` (comma separated; `all` is every variant), in matrix order, once each.

    What a configuration is compared with comes along unasked, since it means nothing without it.

    Raises:
        ConfigurationError: an id that the matrix does not hold, an empty selection, a layout or serving the engine
            cannot run, or a reference that is none.
    """
    usual = options or MatrixOptions()
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigurationError("no configuration is selected", where="configs", hint="for example baseline,drop4_all")
    found: dict[str, Configuration] = {}
    waiting = [configuration for name in names for configuration in _parse(name, usual, max_depth)]
    while waiting:
        configuration = waiting.pop()
        if configuration.id not in found:
            found[configuration.id] = configuration
            waiting += _parse(reference_of(configuration), usual, max_depth)
    for name in usual.references:
        if name not in found:
            raise ConfigurationError("a reference is given for a configuration that is not measured", where=name)
    for configuration in found.values():
        _check_chain(configuration, found)
    return in_matrix_order(found.values())


def in_matrix_order(configurations: Iterable[Configuration]) -> tuple[Configuration, ...]:
    """Return the configurations once each: usual serving first, baselines first, then by depth, group and id."""
    unique = {configuration.id: configuration for configuration in configurations}
    return tuple(sorted(unique.values(), key=_place))


def _place(item: Configuration) -> tuple[bool, int, int, bool, str]:
    return item.serving != "", item.depth, GROUPS.index(item.group), item.layout != "uniform", item.id


def reference_of(configuration: Configuration) -> str:
    """Return the id of what the configuration is compared with, by one rule unless it names its own.

    A variant with the unpruned model of its own layout and serving (the biased layout costs speed of its own, so a
    biased variant is never compared with the uniform baseline); the unpruned model in another serving with the one in
    the usual serving; the baselines of the usual serving are references themselves.
    """
    if configuration.reference is not None:
        return configuration.reference
    unpruned = BASELINE if configuration.layout == "uniform" else CONTROL
    return _name(unpruned, configuration.serving if configuration.depth else "")


def _name(variant: str, serving: str) -> str:
    return f"{variant}.{serving}" if serving else variant


def _parse(name: str, usual: MatrixOptions, max_depth: int) -> list[Configuration]:
    variant, _, tags = name.partition(".")
    if variant == "all":
        variants = [f"drop{depth}_{group}" for depth in range(1, max_depth + 1) for group in GROUPS]
        return [_configuration(one, tags, usual, max_depth) for one in (BASELINE, CONTROL, *variants)]
    return [_configuration(variant, tags, usual, max_depth)]


def _configuration(variant: str, tags: str, usual: MatrixOptions, max_depth: int) -> Configuration:
    match = _VARIANT.match(variant)
    if variant in (BASELINE, CONTROL):
        depth, group = 0, GROUPS[0]
        layout: Layout = "uniform" if variant == BASELINE else "biased"
    elif match is not None and int(match["depth"]) <= max_depth:
        depth, group = int(match["depth"]), next(group for group in GROUPS if group == match["group"])
        layout = layout_of(group)
    else:
        raise ConfigurationError(
            "unknown configuration", where=f"configs: {variant}",
            hint=f"known: {BASELINE}, {CONTROL}, dropN_all, dropN_early, dropN_late with N in 1..{max_depth}",
        )  # fmt: skip
    chosen, nodes = served(tags, usual)
    layouts = ENGINES.get(chosen.engine).layouts
    if layout not in layouts:
        raise ConfigurationError(
            f"{chosen.engine} cannot run the layout {layout}, which {variant} needs", where=f"configs: {variant}",
            hint=f"use another engine, or only variants of the layout {' or '.join(layouts)} (dropN_all is uniform)",
        )  # fmt: skip
    serving = tags_of(chosen, usual, tags)
    identity = _name(variant, serving)
    return Configuration(
        id=identity, depth=depth, group=group, layout=layout, method=chosen.method if depth else "none",
        quantization=chosen.quantization, experts_per_token=chosen.experts_per_token, n_nodes=chosen.n_nodes,
        nodes=nodes, engine=chosen.engine, serving=serving, reference=usual.references.get(identity),
    )  # fmt: skip


def _check_chain(configuration: Configuration, found: dict[str, Configuration]) -> None:
    """Refuse references that lead round in a circle: a ratio to nothing."""
    seen = [configuration.id]
    while (name := reference_of(found[seen[-1]])) != seen[-1]:
        if name in seen:
            raise ConfigurationError("references lead round in a circle", where=" -> ".join([*seen, name]))
        seen.append(name)
