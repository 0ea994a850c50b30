"""What SQLite leaves out in silence: committed transactions behind a damaged frame of a write-ahead log.

SQLite reads a log up to the first frame whose checksum is wrong, since a power cut may tear the last transaction.
Where every commit is made durable before the next begins (synchronous=FULL), whole transactions behind such a frame
tell that it was no power cut: what they hold was promised to be kept. Format:
https://sqlite.org/fileformat2.html#walformat.

Not here: opening databases (`sqlite`).
"""

import sys
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LARGEST_BYTES: Final = 64 << 20
_MAGIC: Final = 0x377F0682
_HEADER: Final = 32
_FRAME: Final = 24
_WORD: Final = 0xFFFF_FFFF


@dataclass(frozen=True)
class _Log:
    data: bytes
    page_size: int
    salts: bytes
    big_endian: bool

    def frames(self) -> range:
        """Return where the frames begin: first this generation's, then what is left of an earlier one."""
        step = _FRAME + self.page_size
        return range(_HEADER, len(self.data) - step + 1, step)

    def is_own(self, at: int) -> bool:
        """Tell whether a frame is of this generation of the log."""
        return self.data[at + 8 : at + 16] == self.salts

    def commits(self, at: int) -> bool:
        """Tell whether a transaction ends with the frame: it gives the database's size in pages."""
        return self.data[at + 4 : at + 8] != b"\0\0\0\0"

    def first_unread(self) -> int | None:
        """Return where the first frame is that SQLite does not take, None when it takes all."""
        sums = _stored(self.data, 24)
        for at in self.frames():
            sums = self.sums(sums, self.data[at : at + 8], self.data[at + _FRAME : at + _FRAME + self.page_size])
            if not self.is_own(at) or sums != _stored(self.data, at + 16):
                return at
        return None

    def sums(self, before: tuple[int, int], *parts: bytes) -> tuple[int, int]:
        first, second = before
        for part in parts:
            words = array("I", part)
            if self.big_endian != (sys.byteorder == "big"):
                words.byteswap()
            for at in range(0, len(words), 2):
                first = (first + words[at] + second) & _WORD
                second = (second + words[at + 1] + first) & _WORD
        return first, second


def lost_in_log(database: Path) -> str | None:
    """Say what the write-ahead log of a database that nobody has open holds in vain; None when all of it is read."""
    path = database.with_name(f"{database.name}-wal")
    if not path.is_file() or not _HEADER < path.stat().st_size <= LARGEST_BYTES:
        return None
    log = _read(path.read_bytes())
    if log is None:
        return f"the head of its write-ahead log {path.name}"
    end = log.first_unread()
    # The last transaction may have been torn by a power cut; those before it were durable when it began.
    lost = sum(log.is_own(at) and log.commits(at) for at in log.frames() if end is not None and at >= end) - 1
    return f"{lost} transactions behind a damaged page of its write-ahead log {path.name}" if lost > 0 else None


def _stored(data: bytes, at: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + 4]), int.from_bytes(data[at + 4 : at + 8])


def _read(data: bytes) -> _Log | None:
    magic = int.from_bytes(data[:4])
    page_size = int.from_bytes(data[8:12])
    if magic & ~1 != _MAGIC or page_size < 512 or page_size > 65536 or page_size & (page_size - 1):
        return None
    log = _Log(data, page_size, data[16:24], bool(magic & 1))
    return log if log.sums((0, 0), data[:24]) == _stored(data, 24) else None
