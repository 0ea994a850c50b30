"""Files and folders that exist whole or not at all: written beside, made durable, renamed.

What a crash leaves is `.NAME.<hex>.partial` beside the target and looks like nothing finished. Its writer holds a lock
on it (flock), which the kernel gives back when the writer dies, so that the next run for the same target knows stale
ones from those of a run still going on, and removes them.

Not here: small state files (the artifact store, the journal), and what is written.
"""

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shared.files.durability import fsync_directory

_ATTEMPTS: Final = 20


@contextmanager
def atomic_write(target: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield an empty file (or folder) beside `target`; when the block ends well it is durable and is the target.

    When the block raises, nothing is left and a former target is as it was. Stale partial files of the same target are
    removed first.

    Raises:
        OSError: the disk fails; nothing is left either.
    """
    remove_stale(target)
    beside, lock = _claim(target, folder)
    try:
        yield beside
        for path in (*beside.iterdir(), beside) if folder else (beside,):
            _fsync(path)
        beside.replace(target)
        fsync_directory(target.parent)
    finally:
        _remove(beside)
        os.close(lock)


def remove_stale(target: Path) -> list[Path]:
    """Remove what dead writers left beside `target`; return what was removed."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{32}}\.partial")
    removed = []
    for entry in target.parent.iterdir():
        if not pattern.fullmatch(entry.name):
            continue
        try:
            lock = _locked(entry)
        except OSError:
            continue  # its writer lives, or it is gone already
        _remove(entry)
        os.close(lock)
        removed.append(entry)
    return removed


def _claim(target: Path, folder: bool) -> tuple[Path, int]:
    """Make a partial file and lock it; another run's `remove_stale` may be faster, hence the attempts."""
    for _ in range(_ATTEMPTS):
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        if folder:
            beside.mkdir()
        else:
            beside.touch(exist_ok=False)
        try:
            lock = _locked(beside)
        except (BlockingIOError, FileNotFoundError):
            continue
        if beside.exists():
            return beside, lock
        os.close(lock)
    raise OSError(0, "partial files vanish as soon as they are made", str(target))


def _locked(path: Path) -> int:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
