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


def is_full(path: Path) -> bool:
    """Tell whether the file system of `path`, which may be missing itself, has no room left for a file to grow."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        found = os.statvfs(path)
    except OSError:
        return False
    no_names = found.f_files > 0 and found.f_favail == 0
    return found.f_bavail * found.f_frsize < _LITTLE_BYTES or no_names


def room_hint(path: Path, *, full: bool) -> str:
    """Return what to do about a disk that takes nothing."""
    if full:
        return f"make room on the file system of {path.parent}; the work goes on by itself then"
    return f"look at the disk and at the rights of {path.parent} (journalctl -k tells of a failing disk)"


def storage_error(error: OSError, what: str, path: Path) -> StorageError | None:
    """Return the lab's error for a disk that refused `what` (a sentence's subject, `the results`) at `path`.

    None when the error is not the disk's.
    """
    words = _WORDS.get(error.errno or 0)
    if words is None:
        return None
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StorageError(f"{what} cannot be written: {words}", where=str(path), hint=room_hint(path, full=full))
