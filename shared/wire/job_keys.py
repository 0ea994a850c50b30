"""Ids of jobs that belong to no campaign: what a person or the house asks an agent for, each time anew.

Not here: the jobs of campaigns (`orchestrator.domain.campaign.job_keys`), what any job id may look like (`protocol`).
"""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from shared.kernel.records import NodeName
from shared.kernel.text_ids import TextId

_NS = r"(?P<utc_ns>[1-9][0-9]{0,18})"


class FindNodeJob(TextId):
    """A node makes itself known: by its LED, or by a load that the meter's channel shows."""

    pattern: ClassVar = re.compile(rf"find_node/(?P<node>[a-z0-9][a-z0-9-]{{0,31}})/(?P<by>led|channel)-{_NS}")
    example: ClassVar = "find_node/node1/led-1796059605866186998"

    node: NodeName
    by: Literal["led", "channel"]
    utc_ns: int = Field(ge=1, lt=10**19)

    def format(self) -> str:
        """Return the job's id."""
        return f"find_node/{self.node}/{self.by}-{self.utc_ns}"


class BenchmarkJob(TextId):
    """One of the jobs of a benchmark outside a campaign, numbered by kind from its start at `utc_ns`."""

    pattern: ClassVar = re.compile(rf"benchmark/{_NS}/(?P<kind>[a-z][a-z0-9_]{{0,31}})-(?P<number>[1-9][0-9]{{0,8}})")
    example: ClassVar = "benchmark/1796059605866186998/score-3"

    utc_ns: int = Field(ge=1, lt=10**19)
    kind: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    number: int = Field(ge=1, lt=10**9)

    def format(self) -> str:
        """Return the job's id."""
        return f"benchmark/{self.utc_ns}/{self.kind}-{self.number}"


class ScrubJob(TextId):
    """An agent hashes its artifacts while no campaign runs."""

    pattern: ClassVar = re.compile(rf"scrub/(?P<agent>[a-z0-9][a-z0-9-]{{0,31}})/{_NS}")
    example: ClassVar = "scrub/node1/1796059605866186998"

    agent: NodeName
    utc_ns: int = Field(ge=1, lt=10**19)

    def format(self) -> str:
        """Return the job's id."""
        return f"scrub/{self.agent}/{self.utc_ns}"
