"""A real file system of a few megabytes that can be filled to its last byte and emptied again.

Tests that use it are marked `mounts`: without root they are run in a user namespace (tests/conftest.py).
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SmallDisk:
    """A mounted file system; what fills it is a file of its own."""

    path: Path

    @property
    def _filler(self) -> Path:
        return self.path / "filler"

    def fill(self, *, but_bytes: int = 0) -> None:
        """Leave no block free, or about `but_bytes`."""
        assert self.path.is_mount(), "nothing but a small disk of its own is ever filled"
        with self._filler.open("ab", buffering=0) as file:
            for size in (1 << 16, 4096, 1):
                with suppress(OSError):
                    while True:
                        file.write(b"\0" * size)
        if but_bytes:
            with self._filler.open("r+b") as file:
                file.truncate(max(0, self._filler.stat().st_size - but_bytes))

    def empty(self) -> None:
        """Give the room back."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount a file system at `path`, which is made, and unmount it at the end."""
    path.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    subprocess.run(mount, check=True, capture_output=True, timeout=30)
    try:
        yield SmallDisk(path)
    finally:
        # Lazily: a process that a failed test left behind must not keep it.
        subprocess.run(["umount", "--lazy", str(path)], check=True, capture_output=True, timeout=30)
