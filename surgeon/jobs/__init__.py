"""The surgeon's job kinds (`shared.wire.surgeon_jobs`) as handlers: on files, and from statistics to plans."""

from shared.wire.job_server import JobKind
from surgeon.jobs.files import FileJobs
from surgeon.jobs.plans import PlanJobs
from surgeon.jobs.tools import Tools

__all__ = ["Tools", "job_kinds"]


def job_kinds(tools: Tools) -> list[JobKind]:  # type: ignore[type-arg]
    """Return all kinds; light ones run beside a heavy one."""
    return [*FileJobs(tools).kinds(), *PlanJobs(tools).kinds()]
