"""The one way files and folders are written whole: made beside the target, made durable, renamed.

| function | for |
|---|---|
| `write_file` | bytes or text that is in memory |
| `write_files` | several of them that appear in order |
| `atomic_write` | a file or folder that is written step by step |
| `move_into_place` | a finished file that lies elsewhere on the same file system |

A failure leaves nothing behind and a former target as it was. What a crash leaves is `.NAME.<hex>.partial` beside the
target and looks like nothing finished. Its writer holds a lock on it (flock), which the kernel gives back when the
writer dies, so that the next run for the same target knows stale ones from those of a run still going on, and removes
them. A target that is a symbolic link is replaced, never followed: result trees may come from strangers.

Not here: lines that are appended (`shared.files.kept_lines`), databases, and what is written.
"""

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from errno import EEXIST, ENOTSUP, EPERM
from pathlib import Path
from typing import Final

from shared.files.disk import full_disk_error
from shared.files.durability import fsync_directory

_ATTEMPTS: Final = 20
_FILE_MODE: Final = 0o666
"""Less what the umask takes, as for any new file."""
_NO_HARD_LINKS: Final = frozenset({EPERM, ENOTSUP})


@contextmanager
def atomic_write(target: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield an empty file (or folder) beside `target`; when the block ends well it is durable and is the target.

    When the block raises, nothing is left and a former target is as it was. Stale partial files of the same target are
    removed first.

    Raises:
        StorageError: the disk is full; nothing is left.
        OSError: the disk fails otherwise; nothing is left either.
    """
    with _partial(target, folder=folder) as beside:
        yield beside
        move_into_place(beside, target)


def write_file(
    target: Path, data: bytes | str, *, mode: int = _FILE_MODE, overwrite: bool = True, durable: bool = True
) -> None:
    """Write one file, whole or not at all; folders that are missing are made. Text is written as UTF-8.

    Args:
        target: the file.
        data: all of it.
        mode: permissions from the first moment on.
        overwrite: False keeps a target that is there already, even one that appears meanwhile.
        durable: False for what describes only this boot (pid files) and is written where the disk must stay quiet.

    Raises:
        FileExistsError: the target is there and must not be overwritten.
        StorageError: the disk is full; nothing is left.
        OSError: the disk fails otherwise; nothing is left.
    """
    _write({target: data}, mode=mode, overwrite=overwrite, durable=durable)


def write_files(contents: Mapping[Path, bytes | str]) -> tuple[Path, ...]:
    """Write files so that each appears whole or not at all; they appear in the order given, when all could be written.

    Raises:
        StorageError: the disk is full; nothing is left.
        OSError: the disk fails otherwise; nothing is left.
    """
    _write(contents)
    return tuple(contents)


def move_into_place(source: Path, target: Path) -> None:
    """Make a finished file (or folder) durable and give it its name.

    Raises:
        OSError: the disk fails, or the two lie on different file systems; the target is as it was.
    """
    for path in (*source.rglob("*"), source) if source.is_dir() else (source,):
        _fsync(path)
    source.replace(target)
    fsync_directory(target.parent)


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


def _write(
    contents: Mapping[Path, bytes | str], *, mode: int = _FILE_MODE, overwrite: bool = True, durable: bool = True
) -> None:
    besides: dict[Path, Path] = {}
    with ExitStack() as stack:
        for target, data in contents.items():
            _make_folder(target.parent)
            besides[target] = beside = stack.enter_context(_partial(target, mode=mode))
            beside.write_bytes(data.encode() if isinstance(data, str) else data)
            if durable:
                _fsync(beside)
        for target, beside in besides.items():
            beside.replace(target) if overwrite else _link(beside, target)
    if durable:
        _fsync_all(target.parent for target in contents)


def _link(beside: Path, target: Path) -> None:
    """Give the file a name that must be new; where there are no hard links, between a look and the rename."""
    try:
        target.hardlink_to(beside)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if target.exists():
            raise FileExistsError(EEXIST, os.strerror(EEXIST), str(target)) from error
        beside.replace(target)


def _make_folder(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    _fsync_all(path.parent for path in missing)


def _fsync_all(folders: Iterable[Path]) -> None:
    for folder in dict.fromkeys(folders):
        fsync_directory(folder)


@contextmanager
def _partial(target: Path, *, folder: bool = False, mode: int = _FILE_MODE) -> Iterator[Path]:
    """Yield an empty partial file (or folder) that is locked; what is left of it in the end is removed."""
    remove_stale(target)
    beside, lock = _claim(target, folder, mode)
    try:
        yield beside
    except OSError as error:
        if (full := full_disk_error(error, beside, target)) is None:
            raise
        raise full from error
    finally:
        _remove(beside)
        os.close(lock)


def _claim(target: Path, folder: bool, mode: int) -> tuple[Path, int]:
    """Make a partial file and lock it; another run's `remove_stale` may be faster, hence the attempts."""
    for _ in range(_ATTEMPTS):
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        if folder:
            beside.mkdir()
        else:
            beside.touch(mode, exist_ok=False)
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
