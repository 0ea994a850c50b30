"""Results by the hash of what they were made from: asking for the same work twice costs nothing the second time."""

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from shared.files.atomic import write_file
from shared.files.durability import hash_file
from shared.files.integrity import Fingerprint
from shared.kernel.clock import NS_PER_S, utc_ns
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.records import Record

R = TypeVar("R", bound=Record)
VERSION = 1
"""Raised when the same inputs come to give other results."""
_FRESH_NS = 3600 * NS_PER_S


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
        """Return the hash of a file, remembered by its place and what the file system says of it."""
        key = _hash_key(path)
        known = self.get(_FileHash, key)
        if known is None:
            known = _FileHash(sha256=hash_file(path), hashed_utc_ns=utc_ns())
            self.put(key, known)
        return known.sha256

    def check_folder(self, folder: Path) -> None:
        """Hash the files of a folder anew, but what was hashed within the last hour.

        Raises:
            DataError: one is another than when it was first read, though nothing says that it was written.
        """
        for path in _files_of(folder):
            key = _hash_key(path)
            known = self.get(_FileHash, key)
            if known is None or known.hashed_utc_ns < utc_ns() - _FRESH_NS:
                now = _FileHash(sha256=hash_file(path), hashed_utc_ns=utc_ns())
                if known is not None and now.sha256 != known.sha256:
                    raise DataError(
                        f"the bytes are others than before (SHA-256 {now.sha256[:12]}, it was {known.sha256[:12]}),"
                        " though nothing says that the file was written", where=str(path),
                        hint="bring it again, and look after this disk and memory",
                    )  # fmt: skip
                self.put(key, now)

    def hash_of_folder(self, folder: Path) -> str:
        """Return a hash of the names and contents of the files directly in a folder."""
        return key_of(files={path.name: self.hash_of(path) for path in _files_of(folder)})


def _files_of(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigurationError("there is no such checkpoint directory", where=str(folder))
    return sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))


def _hash_key(path: Path) -> str:
    """Return where the hash of a file is remembered as long as the file looks the same."""
    try:
        fingerprint = Fingerprint.of(path)
    except OSError as error:
        raise ConfigurationError(f"cannot read it: {error.strerror}", where=str(path)) from error
    return key_of(path=path.resolve(), fingerprint=fingerprint.model_dump())


class _FileHash(Record):
    sha256: str
    hashed_utc_ns: int
