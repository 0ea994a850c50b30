"""Supervised child processes: own process group, pid file, bounded log, found again after the agent's restart.

A pid file is `<state_dir>/pids/<role>.pid`: pid, start time in clock ticks since boot, boot id, one per line. A pid
alone can belong to a stranger after a crash; pid, start time and boot id together cannot, so nothing is ever adopted or
killed on the strength of a number. The end of a process is seen through its pidfd: no polling, and it works for
processes that an earlier agent started.
"""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from shared.files.atomic import write_file
from shared.files.last_lines import last_lines
from shared.kernel.errors import BugError, InfrastructureError

logger = logging.getLogger(__name__)

_LOG_LIMIT_BYTES = 1 << 20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class ProcessIdentity:
    """What tells one process from every other: a pid is used again, its start time is not."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int, *, ended_too: bool = False) -> "ProcessIdentity | None":
        """Return the identity of a living process, None when there is none.

        A zombie counts as none; with `ended_too` it counts (for a child that nobody has waited for yet).
        """
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
        if fields[0] in "ZX" and not ended_too:
            return None
        return cls(pid=pid, start_ticks=int(fields[19]), boot_id=_BOOT_ID.read_text().strip())

    @classmethod
    def read(cls, path: Path) -> "ProcessIdentity | None":
        """Return what a pid file says, None when it is missing or damaged."""
        try:
            pid, ticks, boot_id = path.read_text().split()
            return cls(int(pid), int(ticks), boot_id)
        except (OSError, ValueError):
            return None

    def write(self, path: Path) -> None:
        """Write the pid file; it need not survive a power cut, and processes start inside of measurement windows."""
        write_file(path, f"{self.pid}\n{self.start_ticks}\n{self.boot_id}\n", durable=False)

    def is_alive(self) -> bool:
        """Tell whether exactly this process still runs."""
        return ProcessIdentity.of(self.pid) == self


def is_stopped(pid: int) -> bool:
    """Tell whether a process stands still by a signal or under a debugger; False when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


class Supervised:
    """One running child of a role; `exited` is set when it ends, and its pid file goes with it."""

    def __init__(
        self, role: str, identity: ProcessIdentity, pid_file: Path, log: Path, popen: "subprocess.Popen[bytes] | None"
    ) -> None:
        self.role = role
        self.identity = identity
        self.exited = asyncio.Event()
        self.exit_status: int | None = None
        self._stopping = False
        self._pid_file = pid_file
        self._log = log
        self._popen = popen
        self._pidfd = os.pidfd_open(identity.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    @property
    def pid(self) -> int:
        """Process id, also the id of its process group."""
        return self.identity.pid

    @property
    def running(self) -> bool:
        """True until the process ended."""
        return not self.exited.is_set()

    @classmethod
    def start(
        cls,
        role: str,
        argv: Sequence[str],
        state_dir: Path,
        env: Mapping[str, str] | None = None,
        *,
        pipe: bool = False,
    ) -> Self:
        """Start `argv` in its own session and process group; stdout and stderr go to `<state_dir>/logs/<role>.log`.

        With `pipe` stdout goes to `lines` instead; such a process does not outlive the agent for long.

        Raises:
            InfrastructureError: the program cannot be started.
        """
        log = state_dir / "logs" / f"{role}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        fresh = not log.exists() or log.stat().st_size > _LOG_LIMIT_BYTES
        try:
            with log.open("wb" if fresh else "ab") as out:
                popen = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if pipe else out, stderr=out,
                    start_new_session=True, env={**os.environ, **(env or {})},
                )  # fmt: skip
        except OSError as error:
            raise InfrastructureError(f"cannot start the process: {error.strerror}", where=argv[0]) from error
        identity = ProcessIdentity.of(popen.pid, ended_too=True)
        if identity is None:
            raise BugError(f"our own child {popen.pid} has no identity", where=argv[0])
        pid_file = state_dir / "pids" / f"{role}.pid"
        identity.write(pid_file)
        logger.info("%s started (pid %d)", role, popen.pid)
        return cls(role, identity, pid_file, log, popen)

    @classmethod
    def find(cls, role: str, state_dir: Path) -> Self | None:
        """Return the process an earlier agent started, None (and no pid file) when it is gone."""
        pid_file = state_dir / "pids" / f"{role}.pid"
        identity = ProcessIdentity.read(pid_file)
        if identity is not None and identity.is_alive():
            with contextlib.suppress(ProcessLookupError):
                return cls(role, identity, pid_file, state_dir / "logs" / f"{role}.log", None)
        pid_file.unlink(missing_ok=True)
        return None

    def command(self) -> list[str]:
        """Return the command line it runs with, [] when it is gone."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            return []

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield what the process prints, line by line, until it closes its output; only after `start(pipe=True)`."""
        if self._popen is None or self._popen.stdout is None:
            return
        reader = asyncio.StreamReader(limit=_LOG_LIMIT_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, self._popen.stdout)
        try:
            while True:
                try:
                    line = await reader.readline()
                except ValueError:  # longer than any line that is known: thrown away, as far as it came
                    continue
                if not line:
                    break
                yield line
        finally:
            transport.close()

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        if self._popen is not None:
            self.exit_status = self._popen.wait()
        if ProcessIdentity.read(self._pid_file) == self.identity:
            self._pid_file.unlink(missing_ok=True)
        if self._stopping or self.exit_status == 0:
            logger.info("%s ended (pid %d)", self.role, self.pid)
        else:
            logger.warning("%s (pid %d) %s", self.role, self.pid, self.describe_end())
        self.exited.set()

    async def stop(self, grace_s: float = 3.0) -> None:
        """End the process group: SIGTERM, then SIGKILL after `grace_s`; returns when it is gone."""
        self._stopping = True
        for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
            if not self.running or not self.identity.is_alive():
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.exited.wait(), wait_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.exited.wait(), 10.0)
        if self._popen is not None and self._popen.stdout is not None:
            self._popen.stdout.close()

    def describe_end(self) -> str:
        """Say how the process ended, with the last lines it wrote."""
        status = self.exit_status
        if status is None:
            how = "ended"
        elif status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
        else:
            how = f"ended with exit code {status}"
        return f"{how}; its last words: {self.log_tail() or 'none'}"

    def log_tail(self) -> str:
        """Return the last lines of the log."""
        return tail(self._log)


def tail(path: Path, lines: int = 6) -> str:
    """Return the last `lines` non-empty lines of a text file joined by ' | ', "" when there is none."""
    return " | ".join(line.strip() for line in last_lines(path, lines))
