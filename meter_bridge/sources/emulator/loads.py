"""What the emulated meter measures: true energy of one node as a function of host time.

Every load answers one question, the joules used until a moment; power is the difference over an interval. So a lag is
nothing but asking for an earlier moment.
"""

import itertools
import os
import time
from bisect import bisect_right
from collections import deque
from pathlib import Path
from typing import Protocol

import psutil

from meter_bridge.protocol.limits import LARGEST_POWER_W
from shared.files.trace_csv import read_rows
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.numbers import decimal

RESCAN_S = 1.0
_HISTORY_S = 10.0
_CPUCLOCK_SCHED = 2


class Load(Protocol):
    """A node as the meter sees it."""

    def observe(self, now_s: float) -> None:
        """Look at the node now; called before `energy_j` is asked for times up to now."""

    def energy_j(self, at_s: float) -> float:
        """Return the joules used until `at_s` (host monotonic seconds, not after the last `observe`)."""


def process_cpu_s(pid: int) -> float | None:
    """Return the CPU time of a process with all its threads, to the nanosecond; None when it is gone.

    The clock id of a process is made as in the kernel's posix-timers.h: ~pid << 3, plus 2 for scheduler time.
    """
    try:
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        pass
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


class ProcessLoad:
    """idle_w all the time, and core_w for each second of CPU that the processes named in `directory` really use.

    `directory` holds files `*.pid` with a decimal pid in the first line; they may come and go at any time.
    """

    def __init__(self, directory: Path, *, idle_w: float, core_w: float, now_s: float) -> None:
        self._directory = directory
        self._idle_w = idle_w
        self._core_w = core_w
        self._start_s = now_s
        self._cpu: dict[int, float] = {}
        self._used_s = 0.0
        self._scanned_s = -RESCAN_S
        self._changed_ns = -1
        self._history: deque[tuple[float, float]] = deque([(now_s, 0.0)])
        self._scan(now_s)

    def observe(self, now_s: float) -> None:
        """Add up the CPU time used since the last look."""
        self._scan(now_s)
        for pid, before_s in list(self._cpu.items()):
            cpu_s = process_cpu_s(pid)
            if cpu_s is None:
                del self._cpu[pid]
                continue
            # A clock that went back is another process under a recycled pid.
            self._used_s += max(cpu_s - before_s, 0.0)
            self._cpu[pid] = cpu_s
        if now_s > self._history[-1][0]:
            self._history.append((now_s, self._used_s))
        while len(self._history) > 2 and self._history[1][0] < now_s - _HISTORY_S:
            self._history.popleft()

    def energy_j(self, at_s: float) -> float:
        """Return the joules until `at_s`, at most `_HISTORY_S` ago; linear between looks."""
        return self._idle_w * (at_s - self._start_s) + self._core_w * self._cpu_until(at_s)

    def _cpu_until(self, at_s: float) -> float:
        index = bisect_right(self._history, (at_s, float("inf")))
        if index == 0:
            return self._history[0][1]
        if index == len(self._history):
            return self._history[-1][1]
        (t0, c0), (t1, c1) = self._history[index - 1], self._history[index]
        return c0 + (c1 - c0) * (at_s - t0) / (t1 - t0)

    def _scan(self, now_s: float) -> None:
        try:
            changed_ns = self._directory.stat().st_mtime_ns
        except OSError:
            self._cpu.clear()
            return
        if changed_ns == self._changed_ns and now_s - self._scanned_s < RESCAN_S:
            return
        self._scanned_s, self._changed_ns = now_s, changed_ns
        pids = {pid for path in self._directory.glob("*.pid") if (pid := _read_pid(path)) is not None}
        for pid in pids - self._cpu.keys():
            cpu_s = process_cpu_s(pid)
            if cpu_s is not None:
                self._cpu[pid] = cpu_s
        for pid in self._cpu.keys() - pids:
            del self._cpu[pid]


def _read_pid(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").split("\n", 1)
        pid = int(lines[0])
    except (OSError, ValueError):
        return None
    return pid if 0 < pid < 2**22 and pid != os.getpid() else None


class ScheduleLoad:
    """Steps of (seconds, watts), repeated for ever."""

    def __init__(self, steps: list[tuple[float, float]], *, now_s: float) -> None:
        if not steps or any(seconds <= 0 for seconds, _ in steps):
            raise ConfigurationError("a schedule needs steps of more than 0 s")
        self._start_s = now_s
        self._ends: list[float] = []
        self._joules: list[float] = [0.0]
        self._watts = [watts for _, watts in steps]
        elapsed = 0.0
        for seconds, watts in steps:
            elapsed += seconds
            self._ends.append(elapsed)
            self._joules.append(self._joules[-1] + seconds * watts)

    def observe(self, now_s: float) -> None:
        """Nothing to look at."""

    def energy_j(self, at_s: float) -> float:
        """Return the joules since the start, exactly; before the start the first step counts."""
        elapsed = at_s - self._start_s
        if elapsed < 0:
            return elapsed * self._watts[0]
        rounds, phase = divmod(elapsed, self._ends[-1])
        step = min(bisect_right(self._ends, phase), len(self._watts) - 1)
        begun = self._ends[step - 1] if step else 0.0
        return rounds * self._joules[-1] + self._joules[step] + (phase - begun) * self._watts[step]


def parse_schedule(text: str) -> list[tuple[float, float]]:
    """Read `5x3.2,10x12` (5 s at 3.2 W, then 10 s at 12 W).

    Raises:
        ConfigurationError: the text is something else.
    """
    try:
        steps = [
            (decimal(seconds, 1e9), decimal(watts, LARGEST_POWER_W))
            for seconds, watts in (part.split("x") for part in text.split(","))
        ]
    except ValueError as error:
        raise ConfigurationError("not a schedule", where=text, hint="write SECONDSxWATTS,SECONDSxWATTS") from error
    return steps


def load_trace(path: Path, node: str) -> list[tuple[float, float]]:
    """Read one node of a trace CSV (timestamp, node, watts) as schedule steps; each value holds until the next.

    Raises:
        DataError: unreadable, or fewer than two samples of that node.
    """
    points = [(at_ns, watts) for at_ns, name, watts in read_rows(path) if name == node]
    if len(points) < 2:
        raise DataError(f"the trace has fewer than two samples of {node!r}", where=str(path))
    return [((later[0] - now[0]) / 1e9, now[1]) for now, later in itertools.pairwise(points) if later[0] > now[0]]
