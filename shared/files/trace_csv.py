"""The power trace as CSV, the one place where it is written and read: timestamp,node,watts.

A timestamp is ISO 8601 UTC with nanoseconds, exactly; watts have the shortest decimal form that reads back to the same
float64; a reading that a channel did not send has no line. Written and read in pieces: a trace of weeks needs no more
memory than a piece. What earlier versions wrote (fewer decimals, channels in another order) is read too.

Not here: where the files lie (`orchestrator.results`), the trace database (`meter_bridge.trace`).
"""

import csv
import itertools
import math
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.kernel.clock import NS_PER_S
from shared.kernel.errors import DataError
from shared.kernel.numbers import decimal
from shared.kernel.regular_files import open_regular_text

TRACE_HEADER = "timestamp,node,watts"
_COLUMNS = TRACE_HEADER.split(",")
_LONGEST_LINE = 200
_BLOCK = 1 << 16
_TIMESTAMP = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?Z\Z", re.ASCII)
LARGEST_POWER_W = 1e6
"""No lab of boards takes a megawatt: such a number is damage."""
_NODE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")


@dataclass(frozen=True)
class TraceColumn:
    """The readings of one node: `watts[i]` (float64) at `utc_ns[i]` (int64, strictly ascending)."""

    utc_ns: NDArray[np.int64]
    watts: NDArray[np.float64]


class BinaryFile(Protocol):
    """What bytes can be written to."""

    def write(self, data: bytes, /) -> object:
        """Take bytes."""


class TraceCsvWriter:
    """Writes a trace piece by piece to a binary file, header first; `readings` are the lines written so far."""

    def __init__(self, file: BinaryFile) -> None:
        self._file = file
        self._last_utc_ns = -1
        self.readings = 0
        file.write(f"{TRACE_HEADER}\n".encode())

    def add(self, utc_ns: Sequence[int], power_w: Mapping[str, Sequence[float | None]]) -> None:
        """Append the readings of some moments: `power_w[node][i]` belongs to `utc_ns[i]`, null where none was sent.

        Raises:
            DataError: the times do not ascend, within the piece or after the piece before; nothing is written.
        """
        last = self._last_utc_ns
        for at in utc_ns:
            if at <= last:
                raise DataError("the times of a trace must ascend", where=iso_utc_ns(at))
            last = at
        lines = trace_lines(utc_ns, power_w)
        self._file.write("".join(lines).encode())
        self.readings += len(lines)
        self._last_utc_ns = last


def trace_lines(utc_ns: Sequence[int], power_w: Mapping[str, Sequence[float | None]]) -> list[str]:
    """Return the lines of some moments, nodes in the order of their names; without the header.

    Raises:
        DataError: columns of different length, a reading that is infinite, or a name that is none of a node: what a
            spreadsheet would take for a formula is none.
    """
    nodes = sorted(power_w)
    for node in nodes:
        if len(power_w[node]) != len(utc_ns):
            raise DataError(f"{len(power_w[node])} powers for {len(utc_ns)} times", where=f"node {node}")
        if not _NODE.match(node):
            raise DataError(f"{node[:40]!r} is not a node name", where="the trace")
    lines: list[str] = []
    second, prefix = -1, ""
    for at, *powers in zip(utc_ns, *(power_w[node] for node in nodes), strict=True):
        if at // NS_PER_S != second:
            second = at // NS_PER_S
            prefix = f"{datetime.fromtimestamp(second, tz=UTC):%Y-%m-%dT%H:%M:%S}."
        stamp = f"{prefix}{at % NS_PER_S:09d}Z"
        for node, watts in zip(nodes, powers, strict=True):
            if watts is None or watts != watts:
                continue
            if math.isinf(watts):
                raise DataError("an infinite power", where=f"{node} at {stamp}")
            lines.append(f"{stamp},{node},{float(watts)!r}\n")
    return lines


def iso_utc_ns(at_utc_ns: int) -> str:
    """Return an ISO 8601 UTC timestamp with nanoseconds."""
    moment = datetime.fromtimestamp(at_utc_ns // NS_PER_S, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_utc_ns % NS_PER_S:09d}Z"


def parse_iso_utc_ns(text: str) -> int:
    """Return the UTC nanoseconds of `iso_utc_ns`, exactly.

    Raises:
        DataError: another format.
    """
    match = _TIMESTAMP.match(text)
    if match is None:
        raise DataError("not an ISO 8601 UTC timestamp like 2026-01-31T12:00:00.000000000Z", where=text[:40])
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    if not 1970 <= year < 2200:
        raise DataError("a year outside 1970..2199", where=text[:40])
    try:
        seconds = int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())
    except ValueError as error:
        raise DataError(f"no such moment: {error}", where=text[:40]) from error
    return seconds * NS_PER_S + int((match[7] or "").ljust(9, "0"))


class _Clock:
    """Reads timestamps that follow one another: those of one second are calendar work only once."""

    def __init__(self) -> None:
        self._second, self._second_ns = "", 0

    def utc_ns(self, text: str) -> int:
        """Return what `parse_iso_utc_ns` returns, and raise what it raises."""
        decimals = text[20:29]
        is_same = text[:20] == self._second and len(text) == 30 and text[29] == "Z"
        if is_same and decimals.isascii() and decimals.isdigit():
            return self._second_ns + int(decimals)
        at = parse_iso_utc_ns(text)
        self._second, self._second_ns = f"{text[:19]}.", at - at % NS_PER_S
        return at


def read_rows(path: Path) -> Iterator[tuple[int, str, float]]:
    """Yield (UTC ns, node, watts) of each line in the order of the file; memory does not grow with it.

    Raises:
        DataError: it cannot be read, or a line is not timestamp,node,watts; the line is named by its number.
    """
    try:
        with open_regular_text(path, newline="") as file:
            rows = csv.reader(itertools.chain.from_iterable(_bounded_lines(file, path)))
            if next(rows, []) != _COLUMNS:
                raise DataError(f"the first line must be {TRACE_HEADER}", where=str(path))
            nodes: set[str] = set()
            stamp, at, clock = "", 0, _Clock()
            for number, row in enumerate(rows, start=2):
                if len(row) != 3:
                    raise DataError(f"{len(row)} fields instead of 3", where=f"{path}: line {number}")
                if row[0] != stamp:
                    stamp, at = row[0], clock.utc_ns(row[0])
                node = row[1]
                if node not in nodes:
                    if not _NODE.match(node):
                        raise DataError(f"{node[:40]!r} is not a node name", where=f"{path}: line {number}")
                    nodes.add(node)
                try:
                    watts = decimal(row[2], LARGEST_POWER_W)
                except ValueError as error:
                    raise DataError(f"watts: {error}", where=f"{path}: line {number}") from error
                yield at, node, watts
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error


def read_columns(path: Path) -> dict[str, TraceColumn]:
    """Return the readings of each node, sorted by name and time, 16 bytes a reading; equal times are one array.

    Raises:
        DataError: as `read_rows`, or a node has two readings at one moment.
    """
    first: array[int] = array("q")
    times: dict[str, array[int]] = {}  # of the first node, and of those whose times are not the first one's
    watts: dict[str, array[float]] = {}
    for at, node, power in read_rows(path):
        if node not in watts:
            watts[node] = array("d")
            if not times:
                times[node] = first
        if (own := times.get(node)) is not None:
            own.append(at)
        elif (n := len(watts[node])) >= len(first) or first[n] != at:
            times[node] = first[:n]
            times[node].append(at)
        watts[node].append(power)
    columns: dict[str, TraceColumn] = {}
    for node in sorted(watts):
        own = times.pop(node, None)
        if own is None:
            own = first if len(watts[node]) == len(first) else first[: len(watts[node])]
        columns[node] = _column(node, own, watts.pop(node), columns, path)
    return columns


def _column(
    node: str, times: "array[int]", watts: "array[float]", others: Mapping[str, TraceColumn], path: Path
) -> TraceColumn:
    at, power = np.frombuffer(times, dtype=np.int64), np.frombuffer(watts, dtype=np.float64)
    if not bool(np.all(at[1:] > at[:-1])):
        order = np.argsort(at, kind="stable")
        at, power = at[order], power[order]
        if (twice := np.flatnonzero(at[1:] == at[:-1])).size:
            raise DataError(f"node {node} has two samples at {iso_utc_ns(int(at[twice[0]]))}", where=str(path))
    for other in others.values():
        if other.utc_ns.size == at.size and bool(np.array_equal(other.utc_ns, at)):
            return TraceColumn(other.utc_ns, power)  # shared times make sums over nodes cheap
    return TraceColumn(at, power)


def _bounded_lines(file: IO[str], path: Path) -> Iterator[list[str]]:
    """Yield lists of lines; a file without line ends must not be read whole."""
    rest = ""
    while text := file.read(_BLOCK):
        lines = (rest + text).split("\n")
        rest = lines.pop()
        if len(rest) > _LONGEST_LINE:
            raise DataError(f"a line is longer than {_LONGEST_LINE} characters", where=str(path))
        yield lines
    yield [rest] if rest else []
