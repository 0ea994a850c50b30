"""The engines that a node can run: a module here for each of `shared.wire.engines`, or an entry point `epi.engines`.

A module holds as `ENGINE` the engine's settings, which make the rest. docs/extending.md shows a complete engine.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, PlainValidator

from node_agent.engines.base import EngineSettings
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import EngineName
from shared.kernel.registry import Registry
from shared.wire.engines.registry import ENGINES as DESCRIPTIONS

ENGINES: Registry[type[EngineSettings]] = Registry(
    "engine",
    package="node_agent.engines",
    attribute="ENGINE",
    group="epi.engines",
    fits=lambda found: isinstance(found, type) and issubclass(found, EngineSettings) and hasattr(found, "description"),
    name_of=lambda settings: settings.description.name,
    alike=DESCRIPTIONS,
)


def _every_engine(tables: Any) -> Any:
    """Add an empty table for each engine that has none; each is joined with its name for `_read`."""
    if not isinstance(tables, dict):
        return tables
    return {name: (name, tables.get(name, {})) for name in (*ENGINES.names(), *tables)}


def _read(named: Any) -> EngineSettings:
    name, table = named
    try:
        settings = ENGINES.get(name)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error
    return table if isinstance(table, EngineSettings) else settings.model_validate(table)


EngineTables = Annotated[
    dict[EngineName, Annotated[EngineSettings, PlainValidator(_read)]], BeforeValidator(_every_engine)
]
"""The tables `[engines.NAME]` of the agent's settings: one for every engine of this node, given or not."""
