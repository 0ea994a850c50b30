"""Reading files that a stranger may have made: regular files only, and never more of one than is sensible.

A name may stand for a device that never ends, for a pipe that nobody writes to, or for a sparse file of terabytes. What
is refused is an OSError with the reason as its `strerror`, so that callers word it as they word a file that is missing.
"""

import errno
import io
import os
import stat
from pathlib import Path
from typing import Final, TextIO

MIB: Final = 1 << 20
SETTINGS_BYTES: Final = 4 * MIB
"""Of a settings file, a spec or a list of prompts: thousands of times what people write."""
RECORDS_BYTES: Final = 512 * MIB
"""Of a plan, a result file, questions or calibration text: about ten times the largest that was seen."""

_KINDS: Final = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"), (stat.S_ISLNK, "a link"),
)  # fmt: skip


def open_regular(path: Path, *, follow_links: bool = True) -> io.BufferedReader:
    """Open a regular file for reading; nothing else is opened, so nothing can block and no device is touched.

    Args:
        path: the file.
        follow_links: whether `path` itself may be a symbolic link to a regular file.

    Raises:
        OSError: not there, not readable, or no regular file.
    """
    _check_kind(path, path.stat(follow_symlinks=follow_links).st_mode)
    links = 0 if follow_links else os.O_NOFOLLOW
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | links)  # it may have been replaced meanwhile
    try:
        _check_kind(path, os.fstat(handle).st_mode)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def open_regular_text(
    path: Path, limit: int | None = None, *, encoding: str = "utf-8", newline: str | None = None
) -> TextIO:
    """Open a regular file as text, of at most `limit` bytes; without a limit the caller reads it in bounded pieces.

    Raises:
        OSError: as `open_regular`, or the file is larger.
    """
    file = open_regular(path)
    try:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise _too_large(path, limit)
        return io.TextIOWrapper(file, encoding=encoding, newline=newline)
    except BaseException:
        file.close()
        raise


def read_bytes(path: Path, limit: int, *, follow_links: bool = True) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes.

    Raises:
        OSError: as `open_regular`, or the file is larger.
    """
    with open_regular(path, follow_links=follow_links) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(limit + 1) if size <= limit else b""
        if max(size, len(data)) > limit:
            raise _too_large(path, limit)
    return data


def read_text(path: Path, limit: int, *, encoding: str = "utf-8") -> str:
    """Return the text of a regular file of at most `limit` bytes, line ends as Python reads them.

    Raises:
        OSError: as `read_bytes`.
        UnicodeDecodeError: the bytes are no such text.
    """
    return io.TextIOWrapper(io.BytesIO(read_bytes(path, limit)), encoding=encoding).read()


def require_regular(path: Path, limit: int | None = None) -> None:
    """Look at a file that somebody else's code is going to open.

    Raises:
        OSError: not there, not readable, no regular file, or more than `limit` bytes.
    """
    with open_regular(path) as file:
        if limit is not None and os.fstat(file.fileno()).st_size > limit:
            raise _too_large(path, limit)


def leads_outside(folder: Path, path: Path) -> bool:
    """Tell that `path`, links followed, does not lie below `folder`."""
    return not path.resolve().is_relative_to(folder.resolve())


def _too_large(path: Path, limit: int) -> OSError:
    return OSError(errno.EINVAL, f"more than {limit} bytes, more than such a file can need", str(path))


def _check_kind(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        what = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
        raise OSError(errno.EINVAL, f"{what}, not a regular file", str(path))
