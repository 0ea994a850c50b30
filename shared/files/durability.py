"""Hashes and durability of files; imports nothing heavy, so that a node can use it in a small process."""

import ctypes
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shared.kernel.regular_files import open_regular

_SYNC_FILE_RANGE_WRITE: Final = 2
_PIECE_BYTES: Final = 4 << 20


def hash_file(path: Path, on_bytes: Callable[[int], None] | None = None, *, from_disk: bool = False) -> str:
    """Return the SHA-256 of a file, read in bounded memory.

    Args:
        path: the file.
        on_bytes: called with the bytes hashed so far, some MiB apart; what it raises ends the hashing.
        from_disk: forget first what the system keeps of the file in memory, so that the disk itself is read.
    """
    with open_regular(path) as file:
        if from_disk:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if on_bytes is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest, done, piece = hashlib.sha256(), 0, memoryview(bytearray(_PIECE_BYTES))
        while read := file.readinto(piece):
            digest.update(piece[:read])
            done += read
            on_bytes(done)
        return digest.hexdigest()


def fsync_directory(path: Path) -> None:
    """Make a rename inside `path` survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def begin_writeback(handle: int, offset: int, length: int) -> None:
    """Ask the kernel to write these bytes to the disk now, so that the fsync at the end has little left to wait for.

    Nothing is promised: where the system has no sync_file_range, nothing happens.
    """
    sync_file_range = _sync_file_range()
    if sync_file_range is not None:
        sync_file_range(handle, offset, length, _SYNC_FILE_RANGE_WRITE)


@functools.cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
        function.restype = ctypes.c_int
    return function
