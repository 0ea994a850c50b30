"""Content-addressed files: the name is the SHA-256, downloads resume, nothing half-written has a final name.

Not here: what is known of each file's bytes (`shared.files.integrity`).
"""

import shutil
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from shared.files.atomic import move_into_place, write_file
from shared.files.download import OnBytes, Wanted, download
from shared.files.durability import hash_file
from shared.files.integrity import DamagedArtifact, Fingerprint, Integrity
from shared.kernel.errors import DataError, InfrastructureError, NotFoundError
from shared.kernel.records import Record, Sha256
from shared.service.endpoint import Endpoint

_LARGEST_BYTES = 1 << 50
"""A source is believed as far as there is room."""


class NoRoomError(InfrastructureError):
    """What is pinned leaves too little of the quota."""


class ArtifactInfo(Record):
    """One stored file."""

    sha256: Sha256
    size_bytes: int


class ArtifactStore:
    """Files under `root`, named by their hash; partial files live in `root/partial`.

    What does not fit the quota, or the disk, makes artifacts go: first those that `can_be_remade` names, then the
    others, each time the least recently used. What somebody pins (a running campaign, the engine) or reads is never
    removed; pins are files in `root/pins` and survive restarts.

    A file that is not what its name says is set aside in `root/quarantine` when `check` finds it. It stays there while
    it may be the only one: until the artifact is here again and room is needed, or, in a store of `copies_only`, until
    room is needed.
    """

    def __init__(
        self, root: Path, *, quota_bytes: int | None = None, can_be_remade: Callable[[str], bool] | None = None,
        copies_only: bool = False,
    ) -> None:  # fmt: skip
        self.root = root
        self.integrity = Integrity(root)
        self._copies_only = copies_only
        self.quota_bytes = quota_bytes
        self._can_be_remade = can_be_remade or (lambda _sha256: False)
        self._read = Counter[str]()
        self._lock = threading.Lock()  # between choosing what goes and removing it, nobody begins to read
        self._partial = root / "partial"
        self._partial.mkdir(parents=True, exist_ok=True)
        self._pins = root / "pins"
        if (former := root / "holds").is_dir() and not self._pins.exists():  # an earlier version's name
            former.rename(self._pins)

    def path(self, sha256: str) -> Path:
        """Return where an artifact lies, and remember that it was used; its bytes are `check`'s concern.

        Raises:
            NotFoundError: it is not here.
            DamagedArtifactError: it was set aside.
        """
        path = self.root / sha256
        if not path.is_file():
            self.integrity.raise_if_set_aside(sha256)
            raise NotFoundError("no such artifact here", where=sha256)
        self.integrity.hashes.touch(sha256)
        return path

    def check(
        self, sha256: str, *, anew: bool = False, on_bytes: Callable[[int], None] | None = None, from_disk: bool = False
    ) -> Path:
        """Return where an artifact lies, after making sure that it is what its name says.

        It is hashed where the file changed since its hash was last taken, or where that is asked `anew`; else this
        costs nothing. `on_bytes` and `from_disk` are `hash_file`'s.

        Raises:
            NotFoundError: it is not here.
            DamagedArtifactError: its bytes are others; it is set aside now, or was before.
            InfrastructureError: somebody writes it, or it cannot be read.
        """
        return self.integrity.check(sha256, self.path(sha256), anew=anew, on_bytes=on_bytes, from_disk=from_disk)

    def pin(self, owner: str, sha256s: Collection[str]) -> None:
        """Say what `owner` needs from now on, in place of what it pinned before; nothing releases it.

        `owner` becomes a file name: callers check it against a pattern.
        """
        if sha256s:
            write_file(self._pins / owner, "\n".join(sorted(sha256s)))
        else:
            (self._pins / owner).unlink(missing_ok=True)

    def pinned(self) -> dict[str, frozenset[str]]:
        """Return what each owner needs."""
        if not self._pins.is_dir():
            return {}
        owners = sorted(entry for entry in self._pins.iterdir() if not entry.name.startswith("."))
        return {entry.name: frozenset(entry.read_text().split()) for entry in owners}

    def used_bytes(self) -> int:
        """Return the size of everything here, partial files too."""
        folders = (self.root, self._partial)
        return sum(entry.stat().st_size for folder in folders for entry in folder.iterdir() if entry.is_file())

    @contextmanager
    def reading(self, *sha256s: str) -> Iterator[list[Path]]:
        """Give the paths of artifacts, which stay while the block runs.

        Raises:
            NotFoundError: one is not here.
        """
        with self._lock:
            paths = [self.path(sha256) for sha256 in sha256s]
            self._read.update(sha256s)
        try:
            yield paths
        finally:
            with self._lock:
                self._read.subtract(sha256s)

    def make_room(self, needed_bytes: int, *, keep: Collection[str] = ()) -> list[ArtifactInfo]:
        """Remove artifacts until `needed_bytes` more fit the quota and the disk; return what was removed.

        Raises:
            NoRoomError: what is pinned or read leaves too little of the quota; nothing was removed then.
        """
        with self._lock:
            self._remove_damaged(needed_bytes)
            free = self._removable(keep)
            removable = sum(info.size_bytes for info in free)
            if (over := self._over_quota(needed_bytes)) > removable:
                raise NoRoomError(
                    f"{needed_bytes} bytes more do not fit the quota of {self.quota_bytes}: {self.used_bytes()} are"
                    f" used, of which only {removable} may be removed",
                    where=str(self.root), hint="raise artifact_quota_bytes or end a campaign that pins artifacts",
                )  # fmt: skip
            short = self._short_of_disk(needed_bytes)
            return self._remove(free, max(over, short) if short <= removable else over)

    def free_up(self, needed_bytes: int) -> list[ArtifactInfo]:
        """Remove artifacts until `needed_bytes` more fit or nothing more may go: for sizes yet uncertain."""
        with self._lock:
            self._remove_damaged(needed_bytes)
            excess = max(self._over_quota(needed_bytes), self._short_of_disk(needed_bytes))
            return self._remove(self._removable(), excess)

    def collect_garbage(self, keep_bytes: int) -> list[ArtifactInfo]:
        """Remove what nobody pins or reads until at most `keep_bytes` are used or none is left."""
        with self._lock:
            for damaged in self._replaced():
                self.integrity.quarantine.remove(damaged)
            return self._remove(self._removable(), self.used_bytes() - keep_bytes)

    def trim_remade(self, keep_bytes: int, *, keep: Collection[str] = ()) -> list[ArtifactInfo]:
        """Remove what can be remade and nobody pins or reads until at most `keep_bytes` of it are left."""
        with self._lock:
            free = [info for info in self._removable() if self._can_be_remade(info.sha256)]
            excess = sum(info.size_bytes for info in free) - keep_bytes
            return self._remove([info for info in free if info.sha256 not in keep], excess)

    def _removable(self, keep: Collection[str] = ()) -> list[ArtifactInfo]:
        """Return what may be removed, in the order in which it goes."""
        kept = frozenset(keep).union(+self._read, *self.pinned().values())
        free = [info for info in self.list() if info.sha256 not in kept]
        return sorted(
            free,
            key=lambda one: (
                not self._can_be_remade(one.sha256), self.integrity.hashes.used_ns(one.sha256, self._file(one.sha256))
            ),
        )  # fmt: skip

    def _replaced(self) -> list[DamagedArtifact]:
        """Return what was set aside and is not the only one of its artifact."""
        return [one for one in self.integrity.quarantine.list() if self._copies_only or self.has(one.sha256)]

    def _remove_damaged(self, needed_bytes: int) -> None:
        """Remove what was set aside and is replaced, where room is needed: it goes before all others."""
        for damaged in self._replaced():
            set_aside = sum(one.size_bytes for one in self.integrity.quarantine.list())
            if self._over_quota(needed_bytes + set_aside) > 0 or self._short_of_disk(needed_bytes) > 0:
                self.integrity.quarantine.remove(damaged)

    def _over_quota(self, needed_bytes: int) -> int:
        return 0 if self.quota_bytes is None else self.used_bytes() + needed_bytes - self.quota_bytes

    def _short_of_disk(self, needed_bytes: int) -> int:
        return needed_bytes - shutil.disk_usage(self.root).free

    def _remove(self, infos: list[ArtifactInfo], excess: int) -> list[ArtifactInfo]:
        removed = []
        for info in infos:
            if excess <= 0:
                break
            self._file(info.sha256).unlink()
            self.integrity.hashes.forget(info.sha256)
            excess -= info.size_bytes
            removed.append(info)
        return removed

    def _file(self, sha256: str) -> Path:
        return self.root / sha256

    def clean_scratch(self) -> None:
        """Remove scratch files of a process that died; partial downloads stay, they resume. Only before work begins."""
        for entry in self._partial.iterdir():
            if entry.suffix != ".download":
                entry.unlink()

    def partial_path(self, sha256: str) -> Path:
        """Return where an unfinished transfer of an artifact lies or will lie."""
        return self._partial / f"{sha256}.download"

    def has(self, sha256: str) -> bool:
        """Tell whether an artifact is here."""
        return (self.root / sha256).is_file()

    def list(self) -> list[ArtifactInfo]:
        """Return what is here, ordered by hash."""
        found = []
        for entry in sorted(self.root.iterdir()):
            with suppress(FileNotFoundError):  # removed meanwhile
                if len(entry.name) == 64 and entry.is_file():
                    found.append(ArtifactInfo(sha256=entry.name, size_bytes=entry.stat().st_size))
        return found

    def scratch(self) -> Path:
        """Return a fresh path on the same file system, to be given to `adopt`."""
        return self._partial / uuid.uuid4().hex

    def adopt(self, path: Path, *, expected_sha256: str | None = None) -> ArtifactInfo:
        """Hash a finished scratch file, make it durable and give it its name.

        Raises:
            DataError: the hash differs from `expected_sha256`; the file is removed.
        """
        before = Fingerprint.of(path)
        sha256 = hash_file(path)
        if expected_sha256 is not None and sha256 != expected_sha256:
            path.unlink()
            raise DataError(f"hash {sha256} differs from the expected {expected_sha256}", where=path.name)
        move_into_place(path, self.root / sha256)
        self.integrity.note_hash(sha256, self.root / sha256, before)
        return ArtifactInfo(sha256=sha256, size_bytes=before.size_bytes)

    async def download(
        self, source: Endpoint, sha256: str, *, size_bytes: int | None = None, on_bytes: OnBytes | None = None
    ) -> int:
        """Bring an artifact from another agent, resuming a partial file; return the bytes received.

        Raises:
            InfrastructureError: the source cannot be reached or does not have it, or there is no room.
            DataError: what arrived is another file; the partial file is removed.
        """
        if self.has(sha256):
            return 0
        wanted = Wanted(f"/v1/artifacts/{sha256}", max_bytes=_LARGEST_BYTES, size_bytes=size_bytes, sha256=sha256)
        async with source.client(timeout_s=60) as client:
            received = await download(
                client, wanted, self.partial_path(sha256), self.root / sha256, make_room=self.make_room,
                on_bytes=on_bytes,
            )  # fmt: skip
        self.integrity.note_hash(sha256, self.root / sha256)
        return received


@asynccontextmanager
async def scratch_file(store: ArtifactStore) -> AsyncIterator[Path]:
    """Give a scratch path that is removed unless it was adopted."""
    path = store.scratch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
