"""The end of a log, however long it has grown."""

import os
from pathlib import Path
from typing import Final

_READ_BYTES: Final = 16 << 10


def last_lines(path: Path, lines: int) -> list[str]:
    """Return the last lines that hold anything, of the last 16 KiB of a text file; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _READ_BYTES))
            text = file.read(_READ_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]
