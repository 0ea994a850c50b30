"""What is wrong with data that was checked against a record: field, reason and value, worded in one place."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from pydantic import ValidationError

_LONGEST_VALUE: Final = 40
_FROM_A_VALIDATOR: Final = "Value error, "


class FieldDefect(NamedTuple):
    """One field that does not fit; `field` is its path (`tasks.0.name`), empty where the whole is meant."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" if self.field else self.reason


class FailedValidation(Protocol):
    """pydantic's ValidationError and FastAPI's RequestValidationError."""

    def errors(self) -> Sequence[Any]:
        """Return a dict for each field at fault."""


def field_defects(error: FailedValidation) -> list[FieldDefect]:
    """Return every field that does not fit."""
    return [
        FieldDefect(".".join(str(part) for part in item["loc"]), _reason(item["type"], item["msg"], item.get("input")))
        for item in error.errors()
    ]


def first_defect(error: FailedValidation) -> FieldDefect:
    """Return the first field that does not fit."""
    return field_defects(error)[0]


def unknown_fields(error: FailedValidation) -> list[str]:
    """Return the fields that a record does not have, each once; places in lists are not told apart."""
    paths = [item["loc"] for item in error.errors() if item["type"] == "extra_forbidden"]
    return list(dict.fromkeys(".".join("*" if isinstance(part, int) else str(part) for part in path) for path in paths))


def reason_of(error: Exception) -> str:
    """Return in one line why data could not be read: the first field at fault, or what another error says."""
    return str(first_defect(error)) if isinstance(error, ValidationError) else str(error)


def _reason(kind: str, message: str, value: object) -> str:
    """Return the message, and the value where it is one, and short; of a field that nobody knows it may be a secret."""
    message = message.removeprefix(_FROM_A_VALIDATOR)
    if kind == "extra_forbidden" or not (value is None or isinstance(value, str | int | float)):
        return message
    shown = repr(value)
    return f"{message} (given: {shown})" if len(shown) <= _LONGEST_VALUE else message
