"""What this agent did and what it cost: the evidence that it was silent inside a measurement window.

CPU time is the kernel's for the whole process in nanoseconds; bytes are those that the process caused to be written to
a disk (/proc/PID/io), not those sent over sockets. Events are requests served and programs run.
"""

import os
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from shared.kernel.clock import utc_ns
from shared.wire.node_jobs.activity import AgentActivity, AgentEvent

_EVENTS_KEPT = 500
_events: deque[AgentEvent] = deque(maxlen=_EVENTS_KEPT)
_start_utc_ns = utc_ns()


def note(what: str) -> None:
    """Remember that the agent did something now; memory only."""
    _events.append(AgentEvent(utc_ns=utc_ns(), what=what[:200]))


def written_bytes(pid: int | None) -> int | None:
    """Return the bytes that a process caused to be written to disks so far, None when it is gone or not ours."""
    if pid is None:
        return None
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("write_bytes:")), None)


def peak_rss_bytes(pid: int | None) -> int | None:
    """Return the most memory that a process held since its start or `forget_peak`, None when it is gone."""
    if pid is None:
        return None
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), None)


def forget_peak(pid: int | None) -> None:
    """Let the peak of a process count from now on; quiet where the kernel does not allow it: it is then too high."""
    if pid is not None:
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def read_activity(*, engine_pid: int | None, worker_pid: int | None) -> AgentActivity:
    """Return what the agent did since its start, and what its children wrote since theirs."""
    return AgentActivity(
        start_utc_ns=_start_utc_ns,
        end_utc_ns=utc_ns(),
        agent_cpu_s=time.process_time_ns() / 1e9,
        agent_written_bytes=written_bytes(os.getpid()) or 0,
        engine_written_bytes=written_bytes(engine_pid),
        worker_written_bytes=written_bytes(worker_pid),
        engine_peak_rss_bytes=peak_rss_bytes(engine_pid),
        worker_peak_rss_bytes=peak_rss_bytes(worker_pid),
        events=tuple(_events),
    )
