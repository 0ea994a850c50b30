"""Who uses this machine's processors: two looks at /proc, and what lies between them.

One look reads `/proc/stat` and one file a process: some milliseconds, taken in the gaps between windows, nothing is
written. What counts as foreign is all that is not the agent, its engine, worker or marker load, nor a child of these;
kernel threads work for whoever asks the kernel and are left out. A process that ended in between is seen by the total
alone: its time is that of no process. Not here: what share is too much (the orchestrator).
"""

import os
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from shared.kernel.clock import utc_ns
from shared.wire.node_jobs.load import LoadReading, MachineLoad, ProcessId, ProcessLoad

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD
_SNAPSHOTS_KEPT = 8
_LISTED = 24
_SAMPLING_SIGMAS = 3.0
"""Totals count whole ticks, processes their true time: what differs by chance is not taken for somebody's work."""


@dataclass(frozen=True, slots=True)
class _Process:
    start_ticks: int
    parent: int
    name: str
    ticks: int
    is_kernel: bool


@dataclass(frozen=True)
class _Look:
    """The machine at one moment; CPU times in ticks since boot."""

    begun_utc_ns: int
    ended_utc_ns: int
    processes: dict[int, _Process]
    busy_ticks: int
    steal_ticks: int | None
    agent_begun_s: float
    agent_ended_s: float


class LoadWatch:
    """Looks at this machine when asked, and remembers the last few looks."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._snapshots: OrderedDict[int, _Look] = OrderedDict()

    def look(self, since_utc_ns: int | None, own: Iterable[int | None]) -> LoadReading:
        """Take a look; `own` are the processes that work for the campaign, beside this one."""
        before = None if since_utc_ns is None else self._snapshots.get(since_utc_ns)
        now = _look(self._proc)
        self._snapshots[now.ended_utc_ns] = now
        while len(self._snapshots) > _SNAPSHOTS_KEPT:
            self._snapshots.popitem(last=False)
        roots = {os.getpid(), *(pid for pid in own if pid is not None)}
        return LoadReading(utc_ns=now.ended_utc_ns, since=None if before is None else self._between(before, now, roots))

    def _between(self, before: _Look, now: _Look, roots: Collection[int]) -> MachineLoad:
        own = _with_children(now.processes, roots)
        used = _used_ticks(before.processes, now.processes)
        foreign = {
            pid: ticks for pid, ticks in used.items() if ticks and pid not in own and not now.processes[pid].is_kernel
        }
        busy = now.busy_ticks - before.busy_ticks
        unseen = busy - sum(used.values())
        by_chance = _SAMPLING_SIGMAS * sqrt(max(busy, 0) + 1)
        steal = None
        if now.steal_ticks is not None and before.steal_ticks is not None:
            steal = max(now.steal_ticks - before.steal_ticks, 0) / _TICKS_PER_S
        return MachineLoad(
            start_utc_ns=before.ended_utc_ns,
            end_utc_ns=now.begun_utc_ns,
            machine=(self._proc / "sys/kernel/random/boot_id").read_text().strip(),
            n_cpus=os.cpu_count() or 1,
            own=tuple(ProcessId(pid=pid, start_ticks=now.processes[pid].start_ticks) for pid in sorted(own)),
            foreign=tuple(
                ProcessLoad(pid=pid, start_ticks=now.processes[pid].start_ticks, name=now.processes[pid].name,
                            cpu_s=ticks / _TICKS_PER_S)
                for pid, ticks in sorted(foreign.items(), key=lambda one: -one[1])[:_LISTED]
            ),
            foreign_cpu_s=sum(foreign.values()) / _TICKS_PER_S,
            unseen_cpu_s=0.0 if unseen <= by_chance else unseen / _TICKS_PER_S,
            steal_s=steal,
            agent_cpu_s=max(now.agent_begun_s - before.agent_ended_s, 0.0),
        )  # fmt: skip


def _look(proc: Path) -> _Look:
    agent_begun_s, begun = time.process_time(), utc_ns()
    processes = {}
    for name in os.listdir(proc):  # noqa: PTH208 - hundreds of entries, of which only names are wanted
        if name.isdigit() and (process := _read_process(f"{proc}/{name}/stat")) is not None:
            processes[int(name)] = process
    fields = (proc / "stat").read_bytes().split(b"\n", 1)[0].split()
    ticks = [int(field) for field in fields[1:]]  # user nice system idle iowait irq softirq steal ...
    return _Look(
        begun_utc_ns=begun,
        ended_utc_ns=utc_ns(),
        processes=processes,
        busy_ticks=sum(ticks[:3]),
        steal_ticks=ticks[7] if len(ticks) > 7 else None,
        agent_begun_s=agent_begun_s,
        agent_ended_s=time.process_time(),
    )


def _read_process(path: str) -> _Process | None:
    """Return what /proc/PID/stat says, None when it is gone (proc(5): name in brackets, then the fields from 3 on)."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path costs as much as the reading
            text = file.read()
    except OSError:
        return None
    start, end = text.find(b"("), text.rfind(b")")
    fields = text[end + 2 :].split()
    return _Process(
        start_ticks=int(fields[19]),
        parent=int(fields[1]),
        name=text[start + 1 : end].decode("utf-8", "replace"),
        ticks=int(fields[11]) + int(fields[12]),  # its own: what it is told of ended children is their whole life's
        is_kernel=bool(int(fields[6]) & _KERNEL_THREAD),
    )


def _with_children(processes: dict[int, _Process], roots: Collection[int]) -> set[int]:
    """Return the living of `roots` with all their descendants."""
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    left = [pid for pid in roots if pid in processes]
    while left:
        pid = left.pop()
        if pid not in found:
            found.add(pid)
            left += children.get(pid, [])
    return found


def _used_ticks(before: dict[int, _Process], now: dict[int, _Process]) -> dict[int, int]:
    """Return pid -> ticks used since, of all that live now."""
    used = {}
    for pid, process in now.items():
        earlier = before.get(pid)
        known = 0 if earlier is None or earlier.start_ticks != process.start_ticks else earlier.ticks
        used[pid] = max(process.ticks - known, 0)
    return used
