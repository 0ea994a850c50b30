"""Who used a machine's processors in an interval: the answer of `GET /v1/load`, the proof of an undisturbed window.

All times are UTC nanoseconds of the node's clock, all shares are of one core.
"""

from pydantic import Field

from shared.kernel.records import Record


class ProcessId(Record):
    """One process of a machine: a pid is used again, its start time is not."""

    pid: int
    start_ticks: int = Field(description="since boot, in the kernel's clock ticks")


class ProcessLoad(ProcessId):
    """A process that is none of the agent's own, and the CPU time it used."""

    name: str
    cpu_s: float = Field(ge=0, description="its own, without that of children that have ended")


class MachineLoad(Record):
    """What used a machine between two looks at /proc, which lie outside of the window between them."""

    start_utc_ns: int
    end_utc_ns: int
    machine: str = Field(description="the boot's id: the same for agents that share a machine")
    n_cpus: int = Field(ge=1)
    own: tuple[ProcessId, ...] = Field(description="the agent, its engine, worker and marker load, and their children")
    foreign: tuple[ProcessLoad, ...] = Field(default=(), description="all others that used any time, busiest first")
    foreign_cpu_s: float = Field(default=0.0, ge=0, description="of all others, also of those not listed")
    unseen_cpu_s: float = Field(
        default=0.0, ge=0, description="CPU time that no process accounts for: of processes that came and went"
    )
    steal_s: float | None = Field(default=None, ge=0, description="taken by the machine's host; null: not told")
    agent_cpu_s: float = Field(default=0.0, ge=0, description="of the agent itself between the two looks")

    @property
    def duration_s(self) -> float:
        """Length of the interval in seconds."""
        return max((self.end_utc_ns - self.start_utc_ns) / 1e9, 1e-9)


class LoadReading(Record):
    """The answer of `GET /v1/load`: a look was taken now; what happened since an earlier one, if it is still known."""

    utc_ns: int = Field(description="when the look was taken: names it")
    since: MachineLoad | None = Field(default=None, description="null: no such look, for example a restart in between")
