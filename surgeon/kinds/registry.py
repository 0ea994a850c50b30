"""The kinds of surgery there are: each module here holds one as `KIND`; others bring theirs as `epi.surgery_kinds`.

docs/extending.md shows a complete one. Not here: what a kind must be (`base`).
"""

from collections.abc import Sequence
from typing import Any

from shared.kernel.defects import reason_of
from shared.kernel.errors import ConfigurationError
from shared.kernel.registry import Registry
from surgeon.kinds.base import Surgery

KINDS: Registry[type[Surgery]] = Registry(
    "kind of surgery",
    package="surgeon.kinds",
    attribute="KIND",
    group="epi.surgery_kinds",
    fits=lambda found: isinstance(found, type) and issubclass(found, Surgery) and hasattr(found, "kind"),
    name_of=lambda surgery: surgery.kind,
    helpers=("sequence",),
)


def read_surgery(table: Any) -> Surgery:
    """Return the surgery that a table holds: `kind`, and the parameters of that kind.

    Raises:
        ValueError: no table, no such kind, or (as pydantic's own error, which names the field) a wrong parameter.
    """
    if not isinstance(table, dict) or not isinstance(table.get("kind"), str):
        raise ValueError('a table with a kind is needed, for example {"kind": "experts_per_token", "k": 2}')
    try:
        kind = KINDS.get(table["kind"])
    except ConfigurationError as error:
        raise ValueError(str(error)) from error
    return kind.model_validate({name: value for name, value in table.items() if name != "kind"})


def read_list(tables: Sequence[Any], where: str) -> tuple[Surgery, ...]:
    """Return the surgeries of a list.

    Raises:
        ConfigurationError: one is none; it and the field at fault are named.
    """
    found = []
    for number, table in enumerate(tables, start=1):
        try:
            found.append(read_surgery(table))
        except ValueError as error:
            raise ConfigurationError(
                reason_of(error), where=f"{where} {number}", hint="`epi surgery kinds` lists kinds and parameters"
            ) from error
    return tuple(found)
