"""A real lab whose orchestrator halts at every journal boundary until the test says go: kills hit it exactly there.

A boundary is the moment after an entry is committed and before anything else is done. The orchestrator is the real one
with one more listener of its journal; the supervisor is the real one with a shorter back-off.

`python -m tests.crash.stepwise supervisor --out DIR --demo FILE` and `... orchestrator --config FILE` are what the lab
starts; `StepwiseLab` is what tests use. Not here: what is killed, and what must hold afterwards.
"""

import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

from orchestrator.local import control, supervisor
from orchestrator.local.layout import DemoSettings, LocalLab, Part, load_demo
from orchestrator.store.journal import Journal, open_journal
from orchestrator.store.records import Entry
from tests.support.lab import DEMO, TestLab, small_demo

_ROOT = Path(__file__).parents[2]
_BACKOFF_S = (0.1,)


class Boundaries:
    """The test's end: one entry at a time, then `go`."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._connection: socket.socket | None = None
        self._buffer = b""

    def next(self, timeout_s: float) -> Entry:
        """Wait for the orchestrator to stand at its next boundary.

        Raises:
            TimeoutError: it did not reach one.
        """
        while True:
            if self._connection is None:
                if not select.select([self._listener], [], [], timeout_s)[0]:
                    raise TimeoutError(f"no boundary within {timeout_s} s")
                self._connection, self._buffer = self._listener.accept()[0], b""
            line, found, rest = self._buffer.partition(b"\n")
            if found:
                self._buffer = rest
                return Entry.model_validate_json(line)
            if not select.select([self._connection], [], [], timeout_s)[0]:
                raise TimeoutError(f"no boundary within {timeout_s} s")
            try:
                data = self._connection.recv(1 << 16)
            except ConnectionError:
                data = b""
            self._buffer += data
            if not data:
                self.close()

    def go(self) -> None:
        """Let the orchestrator go on; quiet when it is dead."""
        if self._connection is not None:
            try:
                self._connection.send(b"g")
            except OSError:
                self.close()

    def close(self) -> None:
        """Forget the connection: a living orchestrator goes on without asking."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class StepwiseLab(TestLab):
    """A lab that can be led from boundary to boundary."""

    __test__ = False

    @contextmanager
    def stepwise(self) -> Iterator[Boundaries]:
        """From here to the end of the block the orchestrator asks at each boundary."""
        path = _socket_of(self)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen(8)
            boundaries = Boundaries(listener)
            try:
                yield boundaries
            finally:
                path.unlink()
                boundaries.close()

    def start(self, demo: Path = DEMO) -> None:
        """Start all processes and wait until they answer."""
        self.prepare(load_demo(demo))
        command = ["-m", "shared.service.die_with_parent", str(os.getpid()), "tests.crash.stepwise", "supervisor"]
        with (self.log_dir / "supervisor.log").open("ab") as log:
            _supervisors[self.out] = subprocess.Popen(
                [sys.executable, *command, "--out", str(self.out), "--demo", str(demo)],
                cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        control.wait_ready(self, demo, lambda _: None)

    def stop(self) -> None:
        """Stop all processes."""
        if (process := _supervisors.pop(self.out, None)) is not None:
            process.terminate()
            process.wait(timeout=60)


_supervisors: dict[Path, subprocess.Popen[bytes]] = {}


@contextmanager
def stepwise_lab() -> Iterator[StepwiseLab]:
    """Start such a lab in a fresh folder, stop it and remove the folder at the end."""
    out = Path(tempfile.mkdtemp(prefix="epi"))
    lab = StepwiseLab(out)
    lab.home.mkdir()
    try:
        lab.start(small_demo(lab.home, scorers=("scorer1",)))
        yield lab
    finally:
        lab.stop()
        shutil.rmtree(out, ignore_errors=True)


def _socket_of(lab: LocalLab) -> Path:
    return lab.home / "boundaries.sock"


class _Asker:
    """The orchestrator's end: told of each entry, it waits for the test's word, if there is a test."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: socket.socket | None = None

    def __call__(self, entry: Entry) -> None:
        if self._connection is None and not self._connect():
            return
        assert self._connection is not None
        try:
            self._connection.sendall(entry.model_dump_json().encode() + b"\n")
            answered = self._connection.recv(1)
        except OSError:
            answered = b""
        if not answered:
            self._connection.close()
            self._connection = None

    def _connect(self) -> bool:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            return False
        self._connection = connection
        return True


def _orchestrate() -> int:
    """Be the orchestrator, with one more listener of its journal."""
    from orchestrator import __main__, app

    lab_home = Path(sys.argv[-1]).parents[1]

    @asynccontextmanager
    async def asking_journal(path: Path) -> AsyncIterator[Journal]:
        async with open_journal(path) as journal:
            journal.listen(_Asker(lab_home / "boundaries.sock"))
            yield journal

    app.open_journal = asking_journal  # type: ignore[attr-defined]
    return __main__.DAEMON.main()


def _supervise() -> int:
    """Be the supervisor of a lab with that orchestrator."""

    class Lab(LocalLab):
        def parts(self, demo: DemoSettings) -> list[Part]:
            module = ("-m", "tests.crash.stepwise", "orchestrator")
            return [
                replace(part, command=module + part.command[2:]) if part.name == "orchestrator" else part
                for part in super().parts(demo)
            ]

    supervisor.LocalLab = Lab  # type: ignore[misc, attr-defined]
    supervisor._BACKOFF_S = _BACKOFF_S  # type: ignore[assignment]
    return supervisor.main()


if __name__ == "__main__":
    role = sys.argv.pop(1)
    sys.exit(_supervise() if role == "supervisor" else _orchestrate())
