"""The kinds of source: each module here holds one as `SOURCE`; others bring theirs as entry points `epi.meter_sources`.

docs/extending.md shows a complete one. Not here: what a source promises (`base`).
"""

from typing import Any

from meter_bridge.sources.base import SourceSettings
from shared.kernel.errors import ConfigurationError
from shared.kernel.registry import Registry

DEFAULT_KIND = "serial"

SOURCES: Registry[type[SourceSettings]] = Registry(
    "kind of meter source",
    package="meter_bridge.sources",
    attribute="SOURCE",
    group="epi.meter_sources",
    fits=lambda found: isinstance(found, type) and issubclass(found, SourceSettings),
    name_of=lambda source: source.kind,
    helpers=("emulator", "log_file", "polled"),
)


def read_source(table: Any) -> SourceSettings:
    """Return the settings that the table `[source]` holds, of the kind it names.

    Raises:
        ValueError: no table, no such kind, or (as pydantic's own error, which names the field) a wrong field.
    """
    if isinstance(table, SourceSettings):
        return table
    if not isinstance(table, dict):
        raise ValueError("a table is needed, such as [source] with device = ...")
    fields = dict(table)
    kind = fields.pop("kind", DEFAULT_KIND)
    if not isinstance(kind, str):
        raise ValueError("kind: the name of a kind of source is needed")
    try:
        source = SOURCES.get(kind)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error
    return source.model_validate(fields)
