"""A byte of a file that flips, as disks, memory and hands do it: seen or unseen by the file system's times."""

import os
from pathlib import Path

from shared.files.integrity import Fingerprint, HashRecord


def flip_byte(path: Path, at: int = -1000) -> None:
    """Flip one bit; size and time of modification stay what they were."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        value = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([value ^ 0x20]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip_byte_unseen(artifact: Path, at: int = -1000) -> None:
    """Flip one bit of a store's file as a failing disk does: nothing that the file system tells of it changes."""
    flip_byte(artifact, at)
    record = artifact.parent / "hashes" / artifact.name
    known = HashRecord.model_validate_json(record.read_bytes())
    record.write_text(known.model_copy(update={"fingerprint": Fingerprint.of(artifact)}).model_dump_json())
