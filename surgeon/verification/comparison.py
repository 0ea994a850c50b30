"""Comparing ranges of two files, and what was compared in the end."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from shared.checkpoints.base import Range
from shared.kernel.errors import DataError
from shared.kernel.records import Record

_CHUNK_BYTES: Final = 4 << 20


class Verification(Record):
    """What was compared; a difference raises instead."""

    format: str
    n_tensors: int
    n_ranges: int
    n_bytes: int
    plan_sha256: str = ""
    """Of the plan, or of the list of surgeries; empty where the result is of neither."""
    identical: bool = False
    """The plan changes nothing and the result is a copy of the base."""


class Comparison:
    """Compares ranges of two files and counts them."""

    def __init__(self) -> None:
        self.n_ranges = 0
        self.n_bytes = 0

    def equal(self, a: BinaryIO, a_offset: int, b: BinaryIO, b_offset: int, length: int, what: str) -> None:
        """Compare a range of the result (`a`) with one of the base.

        Raises:
            DataError: they differ, or the result is too short.
        """
        a.seek(a_offset)
        b.seek(b_offset)
        for begin in range(0, length, _CHUNK_BYTES):
            size = min(_CHUNK_BYTES, length - begin)
            left, right = a.read(size), b.read(size)
            if left != right or len(left) != size:
                raise DataError(
                    "the bytes are not the base's", where=f"{a.name}: {what}, from byte {a_offset + begin}",
                    hint="apply the plan again",
                )  # fmt: skip
        self.n_ranges += 1
        self.n_bytes += length

    def merged(
        self, a: BinaryIO, offset: int, old: Sequence[Range], kind: str, matrix: Sequence[Sequence[float]], what: str
    ) -> None:
        """Compare a tensor of merged experts with the sums of the base's experts `old`, computed again.

        Raises:
            DataError: they differ.
        """
        from shared.checkpoints.merging import merged  # numpy, only where it is needed

        for number, expected in enumerate(merged(old, kind, matrix).chunks()):
            self.exactly(a, offset, expected, f"{what}, merged expert {number}")
            offset += len(expected)

    def exactly(self, a: BinaryIO, offset: int, expected: bytes, what: str) -> None:
        """Compare a range of the result with known bytes.

        Raises:
            DataError: they differ.
        """
        a.seek(offset)
        if a.read(len(expected)) != expected:
            raise DataError("unexpected bytes", where=f"{a.name}: {what}, from byte {offset}")
        self.n_ranges += 1
        self.n_bytes += len(expected)


def require(fine: bool, message: str, where: Path) -> None:
    """Raise DataError unless `fine`."""
    if not fine:
        raise DataError(message, where=str(where))


def check_gaps(path: Path, file: BinaryIO, used: Iterable[tuple[int, int]], begin: int, end: int) -> None:
    """Check that all bytes of [begin, end) outside the `used` ranges are zero.

    Raises:
        DataError: something lies between the tensors.
    """
    at = begin
    for start, length in [*sorted(used), (end, 0)]:
        if start > at:
            file.seek(at)
            left = start - at
            while left:
                chunk = file.read(min(left, _CHUNK_BYTES))
                require(bool(chunk) and not any(chunk), f"unaccounted bytes from {at}", path)
                left -= len(chunk)
        at = max(at, start + length)
