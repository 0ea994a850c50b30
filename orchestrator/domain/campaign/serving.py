"""Servings: how a configuration is run, written as tags in its id, for example `drop4_all.n2.k4`.

| tag | means |
|---|---|
| `llamacpp`, `dllama` | the engine |
| a quantisation in lower case, for example `q8_0` | the weights' type |
| `n2` | the first two nodes of the lab |
| `on-NAME` | the nodes of the campaign's node set NAME, the first is the root |
| `k4` | four active experts a token |

Tags that say what is usual anyway are dropped, so that every configuration has one id. Not here: what is done to the
model (`matrix`).
"""

import re
from collections.abc import Mapping
from typing import Final

from pydantic import Field

from shared.kernel.errors import ConfigurationError
from shared.kernel.records import ConfigurationId, EngineName, NodeName, Record


class MatrixOptions(Record):
    """The usual serving of a matrix: what every configuration has that does not say otherwise in its id."""

    method: str = "frequency"
    quantization: str = "Q4_K_M"
    experts_per_token: int | None = Field(default=None, ge=1)
    n_nodes: int | None = Field(default=None, ge=1)
    engine: EngineName = "llama.cpp"
    node_sets: dict[str, tuple[NodeName, ...]] = Field(default_factory=dict, description="for servings `on-NAME`")
    references: dict[ConfigurationId, ConfigurationId] = Field(
        default_factory=dict, description="configuration -> what it is compared with instead of the rule's choice"
    )


DLLAMA_QUANTIZATION: Final = "Q4_0"
"""distributed-llama runs Q40 weights only; they are ggml's Q4_0 byte for byte (docs/formats.md)."""
_ENGINES: Final[Mapping[str, EngineName]] = {"llamacpp": "llama.cpp", "dllama": "distributed-llama"}
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
            raise ConfigurationError("one thing is said twice", where=f"configs: {tags}", hint=f"the second is {tag}")
        changes[field] = value
        if field == "n_nodes" and isinstance(value, str):
            if value not in usual.node_sets:
                known = ", ".join(sorted(usual.node_sets)) or "none"
                raise ConfigurationError(
                    "there is no such node set", where=f"configs: {tags}",
                    hint=f"name the nodes in the spec's [node_sets]; known: {known}",
                )  # fmt: skip
            nodes = usual.node_sets[value]
            changes[field] = len(nodes)
    if changes.get("engine") == "distributed-llama":
        changes.setdefault("quantization", DLLAMA_QUANTIZATION)
    chosen = usual.model_copy(update=changes)
    _check(chosen, tags)
    return chosen, nodes


def tags_of(chosen: MatrixOptions, usual: MatrixOptions, tags: str) -> str:
    """Return the serving's one spelling: engine, quantisation, nodes, K; "" where all is as usual."""
    found = []
    if chosen.engine != usual.engine:
        found.append(next(tag for tag, engine in _ENGINES.items() if engine == chosen.engine))
    implied = DLLAMA_QUANTIZATION if chosen.engine == "distributed-llama" else usual.quantization
    if chosen.quantization != implied:
        found.append(chosen.quantization.lower())
    named = next((tag for tag in tags.split(".") if tag.startswith("on-")), None)
    if named is not None:
        found.append(named)
    elif chosen.n_nodes is not None and chosen.n_nodes != usual.n_nodes:
        found.append(f"n{chosen.n_nodes}")
    if chosen.experts_per_token is not None and chosen.experts_per_token != usual.experts_per_token:
        found.append(f"k{chosen.experts_per_token}")
    return ".".join(found)


def _read(tag: str) -> tuple[str, object]:
    if tag in _ENGINES:
        return "engine", _ENGINES[tag]
    if (match := _NUMBER.match(tag)) is not None:
        return ("n_nodes" if match["what"] == "n" else "experts_per_token"), int(match["number"])
    if tag.startswith("on-"):
        return "n_nodes", tag.removeprefix("on-")
    if _QUANTIZATION.match(tag):
        return "quantization", tag.upper()
    raise ConfigurationError(
        "unknown serving", where=f"configs: {tag}",
        hint="known: n2 (nodes), k4 (active experts), on-NAME (a node set), dllama, llamacpp, a quantisation like q8_0",
    )  # fmt: skip


def _check(chosen: MatrixOptions, tags: str) -> None:
    where = f"configs: {tags}" if tags else "configs"
    if chosen.engine != "distributed-llama":
        return
    if chosen.quantization != DLLAMA_QUANTIZATION:
        raise ConfigurationError(
            f"distributed-llama runs {DLLAMA_QUANTIZATION} weights only, not {chosen.quantization}", where=where,
            hint=f'set quantization = "{DLLAMA_QUANTIZATION}", or use llama.cpp',
        )  # fmt: skip
    n_nodes = chosen.n_nodes
    if n_nodes is not None and n_nodes & (n_nodes - 1):
        raise ConfigurationError(
            f"distributed-llama runs on 1, 2, 4, ... nodes, not on {n_nodes}", where=where,
            hint="choose a power of two, at most the model's number of KV heads",
        )  # fmt: skip
