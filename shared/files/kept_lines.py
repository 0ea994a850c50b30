"""A file of lines that outlives its writer: what is appended is on the disk before the work goes on.

The first line says whose lines these are. A kill in the middle of a write leaves half a line at the end, which the next
reader cuts off. Not here: what the lines mean.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from shared.files.atomic import write_file
from shared.kernel.errors import DataError
from shared.kernel.records import Record


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
        self.lines = tuple(lines)

    def append(self, lines: Iterable[str]) -> None:
        """Add lines; they are durable when this returns. A failure leaves the file as it was.

        Raises:
            OSError: the disk fails.
        """
        left = memoryview("".join(f"{line}\n" for line in lines).encode())
        with self._path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise
