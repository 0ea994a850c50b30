"""A disk that takes nothing, in words: full, out of its quota, read-only, failing. Not here: who waits for it."""

import errno
import os
from pathlib import Path
from typing import Final

from shared.kernel.errors import StorageError

DISK_FULL: Final = "the disk is full"
_WORDS: Final = {
    errno.ENOSPC: DISK_FULL,
    errno.EDQUOT: "the user's quota of the disk is used up",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk fails (input/output error)",
}
_LITTLE_BYTES: Final = 64 << 10
"""Less room than this is none: files grow by whole blocks, and databases by several at once."""


def folder_of(path: Path) -> Path:
    """Return the folder that `path` lies in, or would lie in: the nearest that exists."""
    return next(folder for folder in path.parents if folder.is_dir())


def is_full(path: Path) -> bool:
    """Tell whether the file system of `path`, which may be missing itself, has no room left for a file to grow."""
    try:
        found = os.statvfs(folder_of(path))
    except OSError:
        return False
    no_names = found.f_files > 0 and found.f_favail == 0
    return found.f_bavail * found.f_frsize < _LITTLE_BYTES or no_names


def room_hint(path: Path, *, full: bool) -> str:
    """Return what to do about a disk that takes nothing."""
    if full:
        return f"make room on the file system of {path.parent}; the work goes on by itself then"
    return f"look at the disk and at the rights of {path.parent} (journalctl -k tells of a failing disk)"


def storage_error(error: OSError, path: Path, what: str = "the file") -> StorageError | None:
    """Return the lab's error for a disk that refused `what` (the subject of a sentence) at `path`.

    None when the error is not the disk's.
    """
    words = _WORDS.get(error.errno or 0)
    if words is None:
        return None
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StorageError(f"{what} cannot be written: {words}", where=str(path), hint=room_hint(path, full=full))


def full_disk_error(error: OSError, beside: Path, target: Path) -> StorageError | None:
    """Return the lab's error when writing `target`, by way of `beside`, failed because the disk is full; else None.

    Some writers (numpy's tofile) raise an OSError without its number: then the disk is asked.
    """
    if error.errno is None:
        error = refusal(beside) or error
    return storage_error(error, target) if error.errno in (errno.ENOSPC, errno.EDQUOT) else None


def refusal(path: Path) -> OSError | None:
    """Return what the disk says to a little more at the end of a file, or in a folder; None when it takes it.

    For writers that only say that they failed (llama.cpp's streams, numpy): a file at `path` is to be thrown away.
    """
    target = path / f".probe-{os.getpid()}" if path.is_dir() else path
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            left = memoryview(bytes(_LITTLE_BYTES))
            while left:
                left = left[os.write(handle, left) :]
            os.fsync(handle)
        finally:
            os.close(handle)
            if target != path:
                target.unlink()
    except OSError as error:
        return error
    return None
