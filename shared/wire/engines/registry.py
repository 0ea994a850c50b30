"""The engines there are: each module here holds its description as `ENGINE`; others bring theirs as entry points.

The group is `epi.engine_descriptions`; docs/extending.md shows a complete engine.
"""

from shared.kernel.records import EngineName
from shared.kernel.registry import Registry
from shared.wire.engines.base import EngineDescription

ENGINES: Registry[EngineDescription] = Registry(
    "engine",
    package="shared.wire.engines",
    attribute="ENGINE",
    group="epi.engine_descriptions",
    fits=lambda found: isinstance(found, EngineDescription),
    name_of=lambda engine: engine.name,
)

SCORING_ENGINE: EngineName = "llama.cpp"
"""Scores the accuracy of what runs on an engine without log-probabilities."""
