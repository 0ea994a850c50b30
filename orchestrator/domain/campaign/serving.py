"""Servings: how a configuration is run, written as tags in its id, for example `drop4_all.n2.k4`.

| tag | means |
|---|---|
| `llamacpp`, `dllama`, ... | the engine (`shared.wire.engines`) |
| a quantisation in lower case, for example `q8_0` | the weights' type |
| `n2` | the first two nodes of the lab |
| `on-NAME` | the nodes of the campaign's node set NAME, the first is the root |
| `fewest` | the first nodes of the lab, as few as hold it (`fit`) |
| `k4` | four active experts a token |

Tags that say what is usual anyway are dropped, so that every configuration has one id. Not here: what is done to the
model (`matrix`).
"""

import re
from typing import Final

from pydantic import Field

from orchestrator.domain.campaign.cells import ModelShape
from orchestrator.domain.campaign.variants import VariantSpec
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import ConfigurationId, EngineName, NodeName, Record
from shared.wire.engines.registry import ENGINES


class MatrixOptions(Record):
    """The usual serving of a matrix: what every configuration has that does not say otherwise in its id."""

    method: str = "frequency"
    quantization: str = "Q4_K_M"
    experts_per_token: int | None = Field(default=None, ge=1, le=4096)
    n_nodes: int | None = Field(default=None, ge=1, le=10_000)
    fewest: bool = Field(default=False, description="on the fewest nodes that hold it, instead of n_nodes")
    fewest_nodes: dict[str, int] = Field(default_factory=dict, description="configuration -> how many that are")
    engine: EngineName = "llama.cpp"
    node_sets: dict[str, tuple[NodeName, ...]] = Field(default_factory=dict, description="for servings `on-NAME`")
    references: dict[ConfigurationId, ConfigurationId] = Field(
        default_factory=dict, description="configuration -> what it is compared with instead of the rule's choice"
    )
    variants: dict[ConfigurationId, VariantSpec] = Field(default_factory=dict, description="named variants")
    model_shape: ModelShape | None = Field(default=None, description="null: what depends on it is not checked")
    left_out: dict[str, str] = Field(default_factory=dict, description="ids that can never run, and why")
    max_depth: int | None = Field(default=None, ge=1, description="of ids of the matrix; null: what the model has")


FEWEST: Final = "fewest"
_NUMBER: Final = re.compile(r"(?P<what>[nk])(?P<number>[1-9][0-9]{0,3})\Z")
_QUANTIZATION: Final = re.compile(r"(i?q[1-8]_[a-z0-9_]+|f16|bf16|f32|mxfp4_moe|tq[12]_0)\Z")


def served(tags: str, usual: MatrixOptions) -> tuple[MatrixOptions, tuple[str, ...]]:
    """Return the options with the serving `tags` (separated by dots) in force, and the nodes it names, if any.

    Raises:
        ConfigurationError: an unknown tag, one thing said twice, or a serving that cannot be.
    """
    changes: dict[str, object] = {}
    nodes: tuple[str, ...] = ()
    for tag in filter(None, tags.split(".")):
        field, value = _read(tag)
        if field in changes:
            raise ConfigurationError(
                "one thing is said twice", where=f"configurations: {tags}", hint=f"the second is {tag}"
            )
        changes[field] = value
        if field == "n_nodes":
            changes["fewest"] = value == FEWEST
            changes[field] = None if value == FEWEST else value
        if field == "n_nodes" and isinstance(value, str) and value != FEWEST:
            if value not in usual.node_sets:
                known = ", ".join(sorted(usual.node_sets)) or "none"
                raise ConfigurationError(
                    "there is no such node set", where=f"configurations: {tags}",
                    hint=f"name the nodes in the spec's [node_sets]; known: {known}",
                )  # fmt: skip
            nodes = usual.node_sets[value]
            changes[field] = len(nodes)
    if "engine" in changes:
        changes.setdefault("quantization", ENGINES.get(str(changes["engine"])).quantization_for(usual.quantization))
    chosen = usual.model_copy(update=changes)
    _check(chosen, tags)
    return chosen, nodes


def tags_of(chosen: MatrixOptions, usual: MatrixOptions, tags: str) -> str:
    """Return the serving's one spelling: engine, quantisation, nodes, K; "" where all is as usual."""
    found = []
    engine = ENGINES.get(chosen.engine)
    if chosen.engine != usual.engine:
        found.append(engine.tag)
    if chosen.quantization != engine.quantization_for(usual.quantization):
        found.append(chosen.quantization.lower())
    named = next((tag for tag in tags.split(".") if tag.startswith("on-")), None)
    if chosen.fewest and not usual.fewest:
        found.append(FEWEST)
    elif named is not None:
        found.append(named)
    elif chosen.n_nodes is not None and chosen.n_nodes != usual.n_nodes:
        found.append(f"n{chosen.n_nodes}")
    if chosen.experts_per_token is not None and chosen.experts_per_token != usual.experts_per_token:
        found.append(f"k{chosen.experts_per_token}")
    return ".".join(found)


def is_serving_tag(tag: str) -> bool:
    """Tell whether a tag says how a configuration is run; others name a method."""
    return bool(tag == FEWEST or _NUMBER.match(tag) or tag.startswith("on-") or _QUANTIZATION.match(tag)) or any(
        engine.tag == tag for engine in ENGINES.all()
    )


def _read(tag: str) -> tuple[str, object]:
    if (match := _NUMBER.match(tag)) is not None:
        return ("n_nodes" if match["what"] == "n" else "experts_per_token"), int(match["number"])
    if tag == FEWEST:
        return "n_nodes", FEWEST
    if tag.startswith("on-"):
        return "n_nodes", tag.removeprefix("on-")
    if _QUANTIZATION.match(tag):
        return "quantization", tag.upper()
    engines = {engine.tag: engine.name for engine in ENGINES.all()}
    if tag in engines:
        return "engine", engines[tag]
    raise ConfigurationError(
        "unknown serving", where=f"configurations: {tag}",
        hint=f"known: n2 (nodes), fewest, k4 (active experts), on-NAME (a node set), {', '.join(sorted(engines))}, "
             "a quantisation like q8_0",
    )  # fmt: skip


def _check(chosen: MatrixOptions, tags: str) -> None:
    where = f"configurations: {tags}" if tags else "configurations"
    engine = ENGINES.get(chosen.engine)
    if not engine.runs_quantization(chosen.quantization):
        runs = " and ".join(engine.quantizations or ())
        raise ConfigurationError(
            f"{engine.name} runs {runs} weights only, not {chosen.quantization}", where=where,
            hint=f'set quantization = "{engine.quantization_for(chosen.quantization)}", or use another engine',
        )  # fmt: skip
    if chosen.n_nodes is not None and (reason := engine.refuses_nodes(chosen.n_nodes)):
        raise ConfigurationError(reason, where=where, hint=f"choose {engine.most_nodes(chosen.n_nodes)} nodes")
