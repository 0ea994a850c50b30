"""One process at a time: a lock file that names its holder. The kernel gives the lock back when the holder dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EDQUOT, ENOSPC
from pathlib import Path

from shared.kernel.errors import ConfigurationError, ConflictError, StorageError


@contextmanager
def held_alone(lock_file: Path, what: str) -> Iterator[None]:
    """Hold `lock_file` for `what`, for example "node agent"; its folder is made, and the file holds our pid.

    Raises:
        ConflictError: another process holds it; the message names the folder and that process.
        ConfigurationError: the folder cannot be made or written.
        StorageError: its disk is full.
    """
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o644)  # not emptied: it may be another's
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise StorageError(
                "cannot work in this folder: the disk is full", where=str(lock_file.parent), hint="make room there"
            ) from error
        raise ConfigurationError(
            f"cannot work in this folder: {error.strerror}",
            where=str(lock_file.parent),
            hint="choose another state_dir",
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(handle, 20, 0).decode(errors="replace").strip() or "unknown"
            raise ConflictError(
                f"another {what} (pid {pid}) works in this folder", where=str(lock_file.parent),
                hint="stop it first, or use another state_dir",
            ) from error  # fmt: skip
        with suppress(OSError):  # a full disk: the lock holds all the same, it only names nobody
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
