"""What an agent itself did in an interval: the proof of its silence."""

from pydantic import Field

from shared.kernel.records import Record, is_absent


class AgentEvent(Record):
    """Something the agent did: served a request, or ran a program."""

    utc_ns: int
    what: str


class AgentActivity(Record):
    """What an agent did in an interval: the proof of its silence.

    `GET /v1/activity` counts from the agent's start; the difference of two answers (`activity_between`) is an interval.
    """

    start_utc_ns: int
    end_utc_ns: int
    agent_cpu_s: float
    agent_written_bytes: int
    engine_written_bytes: int | None = Field(default=None, description="null without an engine process")
    worker_written_bytes: int | None = Field(default=None, description="null without a worker process")
    engine_peak_rss_bytes: int | None = Field(
        default=None, exclude_if=is_absent, description="since the model was asked for, pages of its file included"
    )
    worker_peak_rss_bytes: int | None = Field(
        default=None, exclude_if=is_absent, description="since the worker was asked for"
    )
    events: tuple[AgentEvent, ...] = ()

    @property
    def agent_cpu_share(self) -> float:
        """CPU time of the agent as a share of one core."""
        return self.agent_cpu_s / max((self.end_utc_ns - self.start_utc_ns) / 1e9, 1e-9)


def activity_between(before: AgentActivity, after: AgentActivity) -> AgentActivity:
    """Return what happened between two answers of one agent; null where a process was not there both times.

    An agent that was started anew in between is counted from its new start, which is itself an event.
    """
    restarted = after.start_utc_ns > before.end_utc_ns

    def difference(old: int | None, new: int | None) -> int | None:
        return None if old is None or new is None or new < old else new - old

    events = tuple(event for event in after.events if event.utc_ns > before.end_utc_ns)
    if restarted:
        events = (AgentEvent(utc_ns=after.start_utc_ns, what="the agent was started anew"), *events)
    return AgentActivity(
        start_utc_ns=before.end_utc_ns,
        end_utc_ns=after.end_utc_ns,
        agent_cpu_s=after.agent_cpu_s - (0.0 if restarted else before.agent_cpu_s),
        agent_written_bytes=after.agent_written_bytes - (0 if restarted else before.agent_written_bytes),
        engine_written_bytes=difference(before.engine_written_bytes, after.engine_written_bytes),
        worker_written_bytes=difference(before.worker_written_bytes, after.worker_written_bytes),
        engine_peak_rss_bytes=after.engine_peak_rss_bytes,
        worker_peak_rss_bytes=after.worker_peak_rss_bytes,
        events=events,
    )
