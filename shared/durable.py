"""Hashes and durability of files; imports nothing heavy, so that a node can use it in a small process."""

import hashlib
import os
from pathlib import Path


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_directory(path: Path) -> None:
    """Make a rename inside `path` survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
