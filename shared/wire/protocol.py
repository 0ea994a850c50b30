"""What agents say to each other: version, job requests and states, events, facts.

A job is an agent's execution of one step. Its id is made by the caller and is deterministic, so that asking twice is
asking once: `PUT /v1/jobs/{id}` of a known id returns the existing job.
"""

import functools
import logging
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from shared.kernel.build import SoftwareBuild
from shared.kernel.errors import ErrorPayload
from shared.kernel.records import NodeName, Record
from shared.service.health import HealthStatus

PROTOCOL_VERSION = (2, 1)
"""(major, minor): another major is refused with 409, a higher minor only adds.

What a daemon of a higher minor says is read without what is unknown here (`compatibility`). What it asks for is not: a
parameter that is unknown to the agent is refused, since the job would be another. So a parameter that comes later is
left out at its default (`exclude_if`), and older agents do what they always did."""

log = logging.getLogger(__name__)

JobId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*(/[a-z0-9][a-z0-9_.-]*){0,7}$", max_length=300)]
ServiceName = Literal["orchestrator", "node_agent", "meter_bridge", "surgeon"]
JobStatus = Literal["queued", "running", "finished", "failed", "cancelled", "interrupted"]
TERMINAL: frozenset[JobStatus] = frozenset({"finished", "failed", "cancelled", "interrupted"})


def is_higher_minor(told: object) -> bool:
    """Tell whether a `protocol`, as JSON has it, is of our major and a higher minor."""
    match told:
        case [int(major), int(minor)]:
            return major == PROTOCOL_VERSION[0] and minor > PROTOCOL_VERSION[1]
    return False


class JobRequest(Record):
    """The body of `PUT /v1/jobs/{id}`; `params` are checked against the model of their kind.

    Of a newer caller, what is unknown here is left out, but for `params`; another major is refused by its number.
    """

    protocol: tuple[int, int] = PROTOCOL_VERSION
    kind: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    params: dict[str, Any] = Field(default_factory=dict)
    delay_s: float = Field(
        default=0.0, ge=0, le=3600,
        description="gap before the work: all talk about the job is over when it begins",
    )  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _read_newer(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        match data.get("protocol"):
            case [int(major), int(minor)] if (major, minor) > PROTOCOL_VERSION:
                pass
            case _:
                return data
        if unknown := tuple(sorted(str(key) for key in data.keys() - cls.model_fields.keys())):
            _say_left_out(unknown)
        return {key: value for key, value in data.items() if key in cls.model_fields}


@functools.cache
def _say_left_out(fields: tuple[str, ...]) -> None:
    """Log it once."""
    log.warning(
        "a caller speaks a newer protocol than %d.%d; of its requests is left out: %s", *PROTOCOL_VERSION,
        ", ".join(fields),
    )  # fmt: skip


class JobSummary(Record):
    """A job as a list shows it: without parameters and result."""

    id: str
    kind: str
    status: JobStatus
    progress: float = Field(default=0.0, ge=0, le=1)
    message: str = ""
    error: ErrorPayload | None = None
    created_utc_ns: int
    started_utc_ns: int | None = None
    ended_utc_ns: int | None = None

    @property
    def is_terminal(self) -> bool:
        """True when the job will not change any more."""
        return self.status in TERMINAL


class JobState(JobSummary):
    """A job as its agent remembers it."""

    result: dict[str, Any] | None = None

    @property
    def summary(self) -> JobSummary:
        """The job without what it returned."""
        return JobSummary.model_validate(self.model_dump(exclude={"result"}))


class Event(Record):
    """One line of an agent's event feed (`WS /v1/events?since=SEQ`); `job` is the state after the event."""

    seq: int
    utc_ns: int
    job: JobState


class Health(Record):
    """The answer of `GET /v1/health`."""

    service: ServiceName
    name: NodeName
    version: str = Field(description="of the software, with what tells one build from another")
    build: SoftwareBuild | None = Field(default=None, description="the same in parts; null: an earlier version")
    protocol: tuple[int, int] = PROTOCOL_VERSION
    utc_ns: int
    status: HealthStatus = Field(default="ok", description="degraded still works, failing does not")
    problems: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _read_former_ok(cls, data: Any) -> Any:
        """An agent of an earlier version says `ok` instead of `status`."""
        if not isinstance(data, dict) or "ok" not in data:
            return data
        status = "ok" if data["ok"] else "degraded"
        return {"status": status, **{key: value for key, value in data.items() if key != "ok"}}
