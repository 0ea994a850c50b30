"""A short text that can be written while the disk is full: its room was taken before, and it is written in place.

What is read is what was written, or nothing: a note that was cut short by a kill is none. Not here: what is noted.
"""

import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Final

from shared.files.atomic import write_file

_HEAD: Final = 24
"""Bytes of the length and the checksum before the text."""


class ReservedNote:
    """One note in a file of fixed size."""

    def __init__(self, path: Path, size: int = 16384) -> None:
        self.path = path
        self._size = size

    def reserve(self) -> None:
        """Take the room, if it is not taken yet; a note that is there stays.

        Raises:
            StorageError: the disk is full.
        """
        if not self.path.exists() or self.path.stat().st_size != self._size:
            write_file(self.path, b"\n" * self._size)

    def write(self, text: str) -> bool:
        """Put a text in the place of the one before; False when it is too long or the disk does not even take that."""
        body = text.encode()
        data = b"%010d %010d  \n" % (len(body), zlib.crc32(body)) + body
        if len(data) > self._size:
            return False
        try:
            handle = os.open(self.path, os.O_WRONLY)
            try:
                os.pwrite(handle, data.ljust(self._size, b"\n"), 0)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError:
            return False
        return True

    def read(self) -> str | None:
        """Return the text, None where there is none that is whole."""
        with suppress(OSError, ValueError):
            data = self.path.read_bytes()
            length, crc = (int(field) for field in data[:_HEAD].split())
            body = data[_HEAD : _HEAD + length]
            if (len(body), zlib.crc32(body)) == (length, crc):
                return body.decode()
        return None

    def clear(self) -> None:
        """Take the text away; the room stays."""
        self.write("")
