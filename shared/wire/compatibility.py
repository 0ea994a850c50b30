"""Reading what a daemon of a higher minor says: a higher minor only adds, so what is unknown here is left out.

It is said once in the log. What decides what is measured is never read so: specs, settings, own files and parameters of
jobs stay strict, and a plan must have the hash that is sent with it. Not here: asking (`client`).
"""

import logging
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from shared.kernel.defects import first_defect, unknown_fields
from shared.kernel.errors import ConfigurationError
from shared.wire.protocol import PROTOCOL_VERSION, is_higher_minor

log = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)


def refused_parameters(error: ValidationError, protocol: tuple[int, int], job_id: str) -> ConfigurationError:
    """Return why a job's parameters are refused; of a newer caller they may be right, and the job would be another."""
    field, reason = first_defect(error)
    where = f"{job_id}: params.{field}"
    if not unknown_fields(error) or not is_higher_minor(list(protocol)):
        return ConfigurationError(reason, where=where)
    asked, ours = (".".join(map(str, version)) for version in (protocol, PROTOCOL_VERSION))
    return ConfigurationError(
        f"{reason}; it was asked by protocol {asked}, this agent speaks {ours}", where=where,
        hint="install the same version of EPI Factory on every machine",
    )  # fmt: skip


class TolerantReader:
    """Reads the records of one daemon of a higher minor."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._told: set[str] = set()

    def read(self, kind: type[M], answer: Any, error: ValidationError) -> M:
        """Return the record without what is unknown here; `error` is why it cannot be read as it is.

        Raises:
            ValidationError: it is no such record even so.
        """
        found = kind.model_validate(answer, extra="ignore")
        new = [name for name in (f"{kind.__name__}.{path}" for path in unknown_fields(error)) if name not in self._told]
        if new:
            self._told.update(new)
            log.warning(
                "%s speaks a newer protocol than %d.%d; what is unknown here is left out: %s",
                self._where, *PROTOCOL_VERSION, ", ".join(new),
            )  # fmt: skip
        return found
