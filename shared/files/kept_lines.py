"""A file of lines that outlives its writer: what is appended is on the disk before the work goes on.

The first line says whose lines these are. A kill in the middle of a write leaves half a line at the end, which the next
reader cuts off. Each further line begins with its checksum; those of before have none. Not here: what the lines mean.
"""

import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from shared.files.atomic import write_file
from shared.kernel.errors import DataError
from shared.kernel.records import Record

_SUMMED: Final = re.compile(r"[0-9a-f]{8} ")


class _Header(Record):
    schema_version: int = 1
    identity: str


class KeptLines:
    """The lines of one file, which is made if it is not there.

    Attributes:
        identity: Whose lines these are: that of the file, which may differ from the one that was asked for.
        lines: What the file held when it was opened, without its first line.

    Raises:
        DataError: the file is not such a one.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        if not path.exists() or path.stat().st_size == 0:
            write_file(path, _Header(identity=identity).model_dump_json() + "\n")
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        first, *lines = whole.decode("utf-8", "replace").split("\n")[:-1] or [""]
        try:
            self.identity = _Header.model_validate_json(first).identity
        except ValidationError as error:
            raise DataError(
                "the first line is damaged", where=str(path), hint="remove the file to begin anew"
            ) from error
        if whole != content:
            os.truncate(path, len(whole))
        self.lines = tuple(_as_written(path, number, line) for number, line in enumerate(lines, start=2))

    def append(self, lines: Iterable[str]) -> None:
        """Add lines; they are durable when this returns. A failure leaves the file as it was.

        Raises:
            OSError: the disk fails.
        """
        left = memoryview("".join(f"{_sum(line)} {line}\n" for line in lines).encode())
        with self._path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise


def _sum(line: str) -> str:
    return f"{zlib.crc32(line.encode()):08x}"


def _as_written(path: Path, number: int, line: str) -> str:
    """Return a line without its checksum.

    Raises:
        DataError: the line is not what was written.
    """
    if _SUMMED.match(line) is None:
        return line
    if _sum(line[9:]) != line[:8]:
        raise DataError(
            f"line {number} is not as it was written", where=str(path), hint="remove the file to begin anew"
        )  # fmt: skip
    return line[9:]
