"""Ids that are made of parts: records that are written as one text and read back from it.

A subclass says what the text looks like (`pattern`, with a named group for each field) and writes it (`format`);
`parse(format(x)) == x`. Inside other records it is written as its text. Not here: ids of one part (`records`).
"""

import re
from abc import abstractmethod
from typing import Any, ClassVar, Self

from pydantic import ValidationError, model_serializer, model_validator

from shared.kernel.defects import first_defect
from shared.kernel.errors import DataError
from shared.kernel.records import Record

_SHOWN = 120


class TextId(Record):
    """An id of several parts."""

    pattern: ClassVar[re.Pattern[str]]
    example: ClassVar[str]

    @abstractmethod
    def format(self) -> str:
        """Return the id as it is written."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an id.

        Raises:
            DataError: the text is none.
        """
        if (match := cls.pattern.fullmatch(text)) is None:
            raise DataError(f"not of the form {cls.example}", where=repr(text[:_SHOWN]))
        return cls.of(**_given(match))

    @classmethod
    def of(cls, **parts: object) -> Self:
        """Return the id of these parts, which may come from anywhere.

        Raises:
            DataError: a part does not fit; it is named.
        """
        try:
            return cls.model_validate(parts)
        except ValidationError as error:
            raise DataError(str(first_defect(error)), where=repr(parts)[:_SHOWN]) from error

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        if (match := cls.pattern.fullmatch(data)) is None:
            raise ValueError(f"not of the form {cls.example}")
        return _given(match)

    @model_serializer
    def _written(self) -> str:
        return self.format()

    def __str__(self) -> str:
        """Return the id as it is written."""
        return self.format()


def _given(match: re.Match[str]) -> dict[str, str]:
    return {name: value for name, value in match.groupdict().items() if value is not None}
