"""Reading GGUF's primitive values from a file that may lie about every length."""

import os
import struct
from pathlib import Path
from typing import BinaryIO, Final

from shared.kernel.errors import DataError

UINT32: Final = 4
BOOL: Final = 7
STRING: Final = 8
ARRAY: Final = 9
UINT64: Final = 10
SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
INTEGERS: Final = frozenset({0, 1, 2, 3, 4, 5, 10, 11})
_READ_BYTES: Final = 1 << 20
MAX_HEADER_BYTES: Final = 128 << 20
"""Of everything before the tensors: ten times the largest vocabularies."""


class Cursor:
    """Reads forward through a file and never beyond its end; the buffer grows with what was asked for."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self.size = os.fstat(file.fileno()).st_size
        self.buffer = bytearray()
        self.at = 0

    def fail(self, what: str) -> DataError:
        """Return the error that says where the file is unsound."""
        return DataError(f"not a sound GGUF file: {what}", where=f"{self._path} at byte {self.at}")

    def need(self, count: int) -> int:
        """Make `count` bytes available, step over them and return where they begin."""
        start, end = self.at, self.at + count
        if end > self.size:
            raise self.fail(f"{count} more bytes are promised than the file has")
        if end > MAX_HEADER_BYTES:
            raise self.fail(f"a header of more than {MAX_HEADER_BYTES} bytes")
        while len(self.buffer) < end:
            chunk = self._file.read(max(_READ_BYTES, end - len(self.buffer)))
            if not chunk:
                raise self.fail("the file ends early")
            self.buffer += chunk
        self.at = end
        return start

    def number(self, code: str) -> int:
        """Read one number of a struct code."""
        start = self.need(struct.calcsize("<" + code))
        return int(struct.unpack_from("<" + code, self.buffer, start)[0])

    def text(self, limit: int, what: str) -> str:
        """Read a string of at most `limit` bytes."""
        length = self.number("Q")
        if length > limit:
            raise self.fail(f"a {what} of {length} bytes")
        start = self.need(length)
        try:
            return self.buffer[start : start + length].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fail(f"a {what} that is not UTF-8") from error

    def skip_value(self, kind: int) -> None:
        """Step over a value of a metadata type."""
        if kind in SCALARS:
            self.need(struct.calcsize(SCALARS[kind]))
        elif kind == STRING:
            self.need(self.number("Q"))
        elif kind == ARRAY:
            self.skip_array()
        else:
            raise self.fail(f"unknown value type {kind}")

    def skip_array(self) -> None:
        """Step over an array; strings one by one, since each has its own length."""
        kind, count = self.number("I"), self.number("Q")
        if kind in SCALARS:
            self.need(count * struct.calcsize(SCALARS[kind]))
        elif kind == STRING:
            if count > (self.size - self.at) // 8:
                raise self.fail(f"an array of {count} strings")
            unpack = struct.Struct("<Q").unpack_from
            for _ in range(count):
                start = self.need(8)
                self.need(unpack(self.buffer, start)[0])
        else:
            raise self.fail(f"an array of value type {kind}")
