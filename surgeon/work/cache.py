"""Results by the hash of what they were made from: asking for the same work twice costs nothing the second time."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from shared.files.atomic import write_file
from shared.files.durability import hash_file
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import Record

R = TypeVar("R", bound=Record)
VERSION = 1
"""Raised when the same inputs come to give other results."""


def key_of(**inputs: Any) -> str:
    """Return the hash of JSON-able inputs."""
    text = json.dumps({"version": VERSION, **inputs}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class ResultCache:
    """JSON records under `root`, one file a result, whole or not there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def get(self, cls: type[R], key: str) -> R | None:
        """Return a result, None when there is none or it is of an older shape."""
        try:
            return cls.model_validate_json((self._root / f"{key}.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def has(self, key: str) -> bool:
        """Tell whether there is a result, of whatever shape."""
        return (self._root / f"{key}.json").is_file()

    def put(self, key: str, result: Record) -> None:
        """Keep a result."""
        write_file(self._root / f"{key}.json", result.model_dump_json())

    def hash_of(self, path: Path) -> str:
        """Return the hash of a file, remembered by its place, size and time of change."""
        try:
            status = path.stat()
        except OSError as error:
            raise ConfigurationError(f"cannot read it: {error.strerror}", where=str(path)) from error
        key = key_of(path=path.resolve(), size=status.st_size, changed=status.st_mtime_ns, inode=status.st_ino)
        known = self.get(_FileHash, key)
        if known is None:
            known = _FileHash(sha256=hash_file(path))
            self.put(key, known)
        return known.sha256

    def hash_of_folder(self, folder: Path) -> str:
        """Return a hash of the names and contents of the files directly in a folder."""
        if not folder.is_dir():
            raise ConfigurationError("there is no such checkpoint directory", where=str(folder))
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file() and not entry.name.startswith("."))
        return key_of(files={name: self.hash_of(folder / name) for name in names})


class _FileHash(Record):
    sha256: str
