"""The files that the engine serves: what they were when they were loaded, and that they still are.

A model is mapped into memory, so a byte that is changed on the disk is changed in the engine too. Not here: how a file
is checked (`shared.files.integrity`).
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from shared.files.artifacts import ArtifactStore
from shared.files.integrity import DamagedArtifactError, Fingerprint
from shared.wire.job_server import JobContext


class LoadedFiles:
    """The engine's files and their fingerprints at the time they were loaded."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._loaded: dict[Path, Fingerprint] = {}

    async def take(self, sha256s: Iterable[str], job: JobContext) -> list[Path]:
        """Return the files that are about to be loaded; one that changed since its hash was taken is hashed now.

        Raises:
            NotFoundError: one is not here.
            DamagedArtifactError: one is not what its name says.
        """
        self._loaded = {}
        loop = asyncio.get_running_loop()

        def report(done: int) -> None:
            loop.call_soon_threadsafe(job.progress, 0.0, f"the file changed on the disk: {done >> 20} MiB hashed")

        paths = [await asyncio.to_thread(self._store.check, sha256, on_bytes=report) for sha256 in sha256s]
        self._loaded = {path: Fingerprint.of(path) for path in paths}
        return paths

    def check_unchanged(self) -> None:
        """Look, without reading any, whether the files are still those that were loaded; costs microseconds.

        Raises:
            DamagedArtifactError: one was written, replaced or removed meanwhile; it is hashed when it is next loaded.
        """
        for path, fingerprint in self._loaded.items():
            try:
                unchanged = Fingerprint.of(path) == fingerprint
            except FileNotFoundError:
                unchanged = False
            if not unchanged:
                raise DamagedArtifactError(
                    "the model's file changed on the disk while the engine served it: what it answered may be another"
                    " model's", where=path.name, hint="the attempt is repeated with a file that is checked anew",
                )  # fmt: skip
