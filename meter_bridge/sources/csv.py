"""A CSV file that another program's meter lets grow, with a column a channel."""

import csv
import io
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from meter_bridge.protocol.frames import Hello
from meter_bridge.sources.base import Source, SourceSettings
from meter_bridge.sources.log_file import LogSource, Parsed, Parser
from shared.kernel.numbers import decimal

_LATEST_S = 1e11
"""Unix seconds of the year 5138."""


def csv_parser(time_column: str, power_columns: tuple[str, ...]) -> Parser:
    """Return a parser of lines of a CSV file whose first line names its columns.

    Times are Unix seconds or ISO 8601; an empty power is a missing value.
    """
    header: list[str] = []

    def parse(line: str) -> Parsed | None:
        try:
            row = next(csv.reader(io.StringIO(line)), [])
        except csv.Error as error:
            raise ValueError(str(error)) from error
        if not header:
            missing = {time_column, *power_columns} - set(row)
            if missing:
                raise ValueError(f"no column {sorted(missing)[0]!r}")
            header.extend(row)
            return None
        if not row:
            return None
        fields = dict(zip(header, row, strict=True))
        watts = tuple(decimal(fields[name], math.inf) if fields[name] else math.nan for name in power_columns)
        return _seconds(fields[time_column]), watts, None, None

    return parse


def _seconds(text: str) -> float:
    try:
        return decimal(text, _LATEST_S)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class CsvSettings(SourceSettings):
    """A growing CSV file with a column a channel."""

    kind: ClassVar[str] = "csv"

    path: Path
    time_column: str = Field(min_length=1, max_length=200)
    power_columns: tuple[str, ...] = Field(min_length=1, max_length=64)
    rate_hz: float = Field(default=1.0, ge=0.01, le=100, description="how often a line is expected")
    measurement_point: str = Field(
        min_length=1, max_length=200, description="what that log measured: it cannot be asked"
    )

    @property
    def offered_channels(self) -> int:
        """One a column of power."""
        return len(self.power_columns)

    def make(self, channels: int) -> Source:
        """Return the source."""
        hello = Hello(self.path.name[:64], "csv", channels, self.rate_hz, measurement_point=self.measurement_point)
        return LogSource(self.path, hello, lambda: csv_parser(self.time_column, self.power_columns))


SOURCE = CsvSettings
