"""Whether an artifact is what its name says: when its hash was last taken, how the file looked then, what was bad.

A file is hashed again when it changed since (size, times of change, inode), and whenever somebody asks. One whose hash
is another is set aside, with a note of what was found; it is never measured, served or cut. Not here: what is kept and
what may go (`shared.files.artifacts`).
"""

import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from shared.files.atomic import move_into_place, write_file
from shared.files.durability import hash_file
from shared.kernel.clock import utc_ns
from shared.kernel.errors import InfrastructureError
from shared.kernel.records import Record, Sha256

log = logging.getLogger(__name__)


class DamagedArtifactError(InfrastructureError):
    """A file is not what its name says; it was set aside, and can be fetched or made again."""


class Fingerprint(Record):
    """What the file system says of a file; bytes that change by its hand change this too."""

    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "Fingerprint":
        """Return a file's fingerprint.

        Raises:
            OSError: it is not there.
        """
        status = path.stat()
        return cls(
            size_bytes=status.st_size, modified_ns=status.st_mtime_ns, changed_ns=status.st_ctime_ns,
            inode=status.st_ino,
        )  # fmt: skip


class HashRecord(Record):
    """An artifact's file when its hash was last taken and was right."""

    fingerprint: Fingerprint
    hashed_utc_ns: int


class DamagedArtifact(Record):
    """A file that was set aside: which artifact it should be, what it is, and when it was last seen healthy."""

    sha256: Sha256
    found_sha256: Sha256
    found_utc_ns: int
    healthy_utc_ns: int | None = None
    size_bytes: int
    file: str

    def sentence(self) -> str:
        """Say it for people."""
        return f"artifact {self.sha256[:12]} was damaged (its bytes hash to {self.found_sha256[:12]})"


class HashRecords:
    """The hash records of one store, a file each; the file's time is when the artifact was last used."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @contextmanager
    def alone(self, sha256: str) -> Iterator[None]:
        """Let nobody else hash this artifact meanwhile."""
        with self._locks[sha256]:
            yield

    def get(self, sha256: str) -> HashRecord | None:
        """Return a record, None where there is none that can be read."""
        try:
            return HashRecord.model_validate_json((self._root / sha256).read_bytes())
        except (OSError, ValidationError):
            return None

    def put(self, sha256: str, fingerprint: Fingerprint) -> None:
        """Remember that a file with this fingerprint had the right hash just now; hashing it is not using it."""
        used_ns = self._used_ns(sha256)
        record = HashRecord(fingerprint=fingerprint, hashed_utc_ns=utc_ns())
        write_file(self._root / sha256, record.model_dump_json(), durable=False)
        if used_ns is not None:
            os.utime(self._root / sha256, ns=(used_ns, used_ns))

    def forget(self, sha256: str) -> None:
        """Remove a record."""
        (self._root / sha256).unlink(missing_ok=True)

    def touch(self, sha256: str) -> None:
        """Remember that an artifact was used now; without a record nothing can be remembered."""
        try:
            os.utime(self._root / sha256, ns=(time.time_ns(), time.time_ns()))
        except FileNotFoundError:
            return

    def used_ns(self, sha256: str, path: Path) -> int:
        """Return when an artifact was last used; without a record the file itself says when it was read."""
        used_ns = self._used_ns(sha256)
        return path.stat().st_atime_ns if used_ns is None else used_ns

    def _used_ns(self, sha256: str) -> int | None:
        try:
            return (self._root / sha256).stat().st_mtime_ns
        except FileNotFoundError:
            return None


class Quarantine:
    """Files that were set aside, each with a note; the newest of an artifact is what is told of it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def take(self, sha256: str, path: Path, found_sha256: str, healthy_utc_ns: int | None) -> DamagedArtifact:
        """Set a damaged file aside; it can be looked at, and is found under no artifact's name any more."""
        self._root.mkdir(parents=True, exist_ok=True)
        now = utc_ns()
        aside = self._root / f"{sha256}.{now}"
        damaged = DamagedArtifact(
            sha256=sha256, found_sha256=found_sha256, found_utc_ns=now, healthy_utc_ns=healthy_utc_ns,
            size_bytes=path.stat().st_size, file=str(aside),
        )  # fmt: skip
        write_file(aside.with_name(f"{aside.name}.json"), damaged.model_dump_json())
        move_into_place(path, aside)
        return damaged

    def list(self) -> list[DamagedArtifact]:
        """Return what is set aside and still there, ordered by artifact and time."""
        found = []
        for note in sorted(self._root.glob("*.json")) if self._root.is_dir() else ():
            try:
                damaged = DamagedArtifact.model_validate_json(note.read_bytes())
            except (OSError, ValidationError):
                continue
            aside = self._root / Path(damaged.file).name
            if aside.is_file():
                found.append(damaged.model_copy(update={"file": str(aside)}))
        return found

    def find(self, sha256: str) -> DamagedArtifact | None:
        """Return the newest that should have been this artifact."""
        return next((one for one in reversed(self.list()) if one.sha256 == sha256), None)

    def remove(self, damaged: DamagedArtifact) -> None:
        """Remove a file that was set aside, and its note."""
        aside = self._root / Path(damaged.file).name
        aside.unlink(missing_ok=True)
        aside.with_name(f"{aside.name}.json").unlink(missing_ok=True)


class Integrity:
    """What is known of the bytes of one store's artifacts."""

    def __init__(self, root: Path) -> None:
        self.hashes = HashRecords(root / "hashes")
        self.quarantine = Quarantine(root / "quarantine")

    def check(
        self, sha256: str, path: Path, *, anew: bool, on_bytes: Callable[[int], None] | None, from_disk: bool
    ) -> Path:
        """Return `path` if it holds the artifact; as `ArtifactStore.check`."""
        with self.hashes.alone(sha256):
            try:
                found, known = Fingerprint.of(path), self.hashes.get(sha256)
                if known is not None and known.fingerprint == found and not anew:
                    return path
                actual_sha256 = hash_file(path, on_bytes, from_disk=from_disk)
                if Fingerprint.of(path) != found:
                    raise InfrastructureError("somebody writes this artifact while it is read", where=str(path))
            except OSError as error:
                self.raise_if_set_aside(sha256)  # by somebody who was faster
                raise InfrastructureError(f"cannot read this artifact: {error.strerror}", where=str(path)) from error
            if actual_sha256 == sha256:
                self.hashes.put(sha256, found)
                return path
            damaged = self.quarantine.take(sha256, path, actual_sha256, known.hashed_utc_ns if known else None)
            self.hashes.forget(sha256)
        log.error("%s and is set aside: %s", damaged.sentence(), damaged.file)
        raise DamagedArtifactError(
            f"{damaged.sentence()} and is set aside now", where=damaged.file,
            hint="it is fetched or made again; look after this disk and memory",
        )  # fmt: skip

    def raise_if_set_aside(self, sha256: str) -> None:
        """Say why an artifact is not here, if it was set aside.

        Raises:
            DamagedArtifactError: it was.
        """
        if (damaged := self.quarantine.find(sha256)) is not None:
            raise DamagedArtifactError(f"{damaged.sentence()} and was set aside", where=damaged.file)

    def note_hash(self, sha256: str, path: Path, hashed: Fingerprint | None = None) -> None:
        """Remember that a file had the right hash just now, also where it was renamed since it was `hashed`."""
        now = Fingerprint.of(path)
        if hashed is None or hashed == now.model_copy(update={"changed_ns": hashed.changed_ns}):
            self.hashes.put(sha256, now)
