"""The campaign's matrix: which configurations exist, how a selection is written, which baseline each is compared with.

A configuration is a variant (what is done to the model), after a dot the method where it is not the campaign's, and
its serving where that is not the usual one: `drop4_all`, `drop4_all.reap`, `drop4_all.n2`, `baseline.q8_0.k4`,
`all.dllama`, or a named variant of the spec: `eep-half.n1`.

Not here: ids of variants (`cells`), which experts a configuration drops (the surgeon's plan), servings (`serving`), and
how it is run (`orchestrator.campaign`).
"""

import re
from collections.abc import Iterable
from typing import Final

from orchestrator.domain.campaign.cells import (
    BASELINE,
    CONTROL,
    GROUPS,
    PAPER_GROUPS,
    Cell,
    cell,
    check_depth,
    experts_to_drop,
)
from orchestrator.domain.campaign.serving import MatrixOptions, is_serving_tag, served, tags_of
from orchestrator.domain.campaign.surgeries import PruneExperts, SearchExperts
from orchestrator.domain.campaign.variants import VariantSpec
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import Configuration
from shared.wire.engines.registry import ENGINES

MAX_DEPTH = 8
"""Of the paper's matrix, and of specs of version 1."""
_PAPER: Final = (
    BASELINE, CONTROL, *(f"drop{depth}_{group}" for depth in range(1, MAX_DEPTH + 1) for group in PAPER_GROUPS),
)  # fmt: skip
_METHOD: Final = re.compile(r"[a-z][a-z0-9_]{1,31}\Z", re.ASCII)


def full_matrix(options: MatrixOptions | None = None) -> tuple[Configuration, ...]:
    """Return the 25 configurations of the paper and the control, baselines first, then by depth and group.

    Raises:
        ConfigurationError: the engine cannot run the biased layout.
    """
    return parse_selection("all", options)


def parse_selection(text: str, options: MatrixOptions | None = None) -> tuple[Configuration, ...]:
    """Return the configurations named in `text` (comma separated; `all` is the paper's), in matrix order, once each.

    What a configuration is compared with comes along unasked, since it means nothing without it.

    Raises:
        ConfigurationError: an id that the matrix does not hold, an empty selection, a layout or serving the engine
            cannot run, a depth that the model lacks, or a reference that is none.
    """
    usual = options or MatrixOptions()
    names = written_out(text)
    if not names:
        raise ConfigurationError(
            "no configuration is selected", where="configurations", hint="for example baseline,drop4_all"
        )
    found: dict[str, Configuration] = {}
    waiting = [_parse(name, usual) for name in names if name not in usual.left_out]
    while waiting:
        configuration = waiting.pop()
        if configuration.id not in found:
            found[configuration.id] = configuration
            waiting.append(_parse(reference_of(configuration), usual))
    for name in usual.references:
        if name not in found and name not in usual.left_out:
            raise ConfigurationError("a reference is given for a configuration that is not measured", where=name)
    for configuration in found.values():
        _check_chain(configuration, found)
    return in_matrix_order(found.values())


def identity_of(name: str, options: MatrixOptions) -> str:
    """Return the one id of a configuration that is written as `name`, for example with a percentage.

    Raises:
        ConfigurationError: there is no such configuration.
    """
    return _parse(name, options).id


def written_out(text: str) -> tuple[str, ...]:
    """Return the ids of a selection one by one, `all` written out, as they are written and once each."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    found: dict[str, None] = {}
    for name in names:
        variant, _, tags = name.partition(".")
        each = _PAPER if variant == "all" else (variant,)
        found |= dict.fromkeys(_name(one, tags) for one in each)
    return tuple(found)


def in_matrix_order(configurations: Iterable[Configuration]) -> tuple[Configuration, ...]:
    """Return the configurations once each: usual serving first, baselines first, then by depth, group and id."""
    unique = {configuration.id: configuration for configuration in configurations}
    return tuple(sorted(unique.values(), key=_place))


def _place(item: Configuration) -> tuple[bool, bool, int, int, bool, str]:
    return (
        item.serving != "",
        item.variant is not None,
        item.depth,
        GROUPS.index(item.group),
        item.layout != "uniform",
        item.id,
    )


def reference_of(configuration: Configuration) -> str:
    """Return the id of what the configuration is compared with, by one rule unless it names its own.

    A variant with the unpruned model of its own layout and serving (the biased layout costs speed of its own, so a
    biased variant is never compared with the uniform baseline); the unpruned model in another serving with the one in
    the usual serving; the baselines of the usual serving are references themselves.
    """
    if configuration.reference is not None:
        return configuration.reference
    unpruned = BASELINE if configuration.layout == "uniform" else CONTROL
    return _name(unpruned, configuration.serving if configuration.is_pruned else "")


def _name(variant: str, serving: str) -> str:
    return f"{variant}.{serving}" if serving else variant


def _parse(name: str, usual: MatrixOptions) -> Configuration:
    variant, _, tags = name.partition(".")
    return _configuration(variant, tags, usual)


def _configuration(variant: str, tags: str, usual: MatrixOptions) -> Configuration:
    methods = [tag for tag in tags.split(".") if tag and not is_serving_tag(tag)]
    serving_tags = ".".join(tag for tag in tags.split(".") if tag not in methods)
    chosen, nodes = served(serving_tags, usual)
    named = usual.variants.get(variant)
    known = _named(variant, named, usual) if named is not None else cell(variant, usual.model_shape, usual.max_depth)
    if known is None:
        names = "".join(f", {name}" for name in sorted(usual.variants))
        raise ConfigurationError(
            "unknown configuration", where=f"configurations: {variant}",
            hint=f"known: {BASELINE}, {CONTROL}, dropN_GROUP, dropPpct_GROUP (GROUP: all, early, middle, late){names}",
        )  # fmt: skip
    method = _method(variant, methods, known, named, usual)
    layouts = ENGINES.get(chosen.engine).layouts
    if known.layout not in layouts:
        raise ConfigurationError(
            f"{chosen.engine} cannot run the layout {known.layout}, which {variant} needs",
            where=f"configurations: {variant}",
            hint=f"use another engine, or only variants of the layout {' or '.join(layouts)} (dropN_all is uniform)",
        )  # fmt: skip
    check_depth(known.depth, chosen.experts_per_token, usual.model_shape, f"configurations: {variant}")
    serving = tags_of(chosen, usual, serving_tags)
    own = "" if named is not None or not known.depth or method == usual.method else method
    identity = ".".join(filter(None, (known.id, own, serving)))
    reference = usual.references.get(identity) or (named.reference if named is not None else None)
    n_nodes = usual.fewest_nodes.get(identity) if chosen.fewest else chosen.n_nodes
    return Configuration(
        id=identity, depth=known.depth, group=known.group, layout=known.layout, method=method,
        quantization=chosen.quantization, experts_per_token=chosen.experts_per_token, n_nodes=n_nodes,
        fewest=chosen.fewest, nodes=nodes, engine=chosen.engine, serving=serving, reference=reference,
        variant=None if named is None else variant,
    )  # fmt: skip


def _named(name: str, variant: VariantSpec, usual: MatrixOptions) -> Cell:
    """Return the cell that a named variant is nearest to: its depth and group as far as one number says them."""
    first = variant.decisions[0] if variant.decisions else None
    if isinstance(first, SearchExperts) and first.drop is not None:
        depth = experts_to_drop(first.drop, usual.model_shape, f"variants.{name}.drop")
        return Cell(name, depth, "all", variant.layout)
    if isinstance(first, PruneExperts) and first.drop is not None:
        depth = experts_to_drop(first.drop, usual.model_shape, f"variants.{name}.drop")
        group = first.layers if isinstance(first.layers, str) else "all"
        return Cell(name, depth, group, variant.layout)
    return Cell(name, 0, "all", variant.layout)


def _method(
    variant: str, tags: list[str], known: Cell, named: VariantSpec | None, usual: MatrixOptions
) -> str:  # fmt: skip
    """Return the method that decides which experts go: the id's tag, the named variant's, or the campaign's."""
    if named is not None:
        if tags:
            raise ConfigurationError(
                "a named variant says its method itself", where=f"configurations: {variant}.{tags[0]}"
            )
        return named.method or usual.method
    if len(tags) > 1:
        raise ConfigurationError(
            "one thing is said twice", where=f"configurations: {variant}", hint=f"the second is {tags[1]}"
        )
    if tags and (not known.depth or not _METHOD.match(tags[0])):
        raise ConfigurationError(
            "unknown serving", where=f"configurations: {tags[0]}",
            hint="known: n2 (nodes), k4 (active experts), on-NAME (a node set), an engine's tag, a quantisation like"
                 " q8_0; after dropN_GROUP also a method like reap",
        )  # fmt: skip
    if not known.depth:
        return "none"
    return tags[0] if tags else usual.method


def _check_chain(configuration: Configuration, found: dict[str, Configuration]) -> None:
    """Refuse references that lead round in a circle: a ratio to nothing."""
    seen = [configuration.id]
    while (name := reference_of(found[seen[-1]])) != seen[-1]:
        if name in seen:
            raise ConfigurationError("references lead round in a circle", where=" -> ".join([*seen, name]))
        seen.append(name)
