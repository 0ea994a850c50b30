"""What an attempt is and everything it brings home. Not here: how (`attempt`), what is made of it (`evaluation`)."""

import asyncio
import hashlib
from dataclasses import dataclass, field

from orchestrator.benchmarks.records import SuiteResult
from orchestrator.campaign.preparation import Variant
from orchestrator.domain.campaign.steady_state import SteadyStateWait
from orchestrator.domain.run.records import ServedBy
from shared.kernel.records import Configuration, Window, WindowLabel
from shared.wire.meter_api import MeterStatus, SampleBlock
from shared.wire.node_jobs.activity import AgentActivity
from shared.wire.node_jobs.artifacts import FetchResult
from shared.wire.node_jobs.host import NodeFacts
from shared.wire.node_jobs.workloads import MarkerResult


@dataclass(frozen=True)
class AttemptPlace:
    """Which attempt this is, and the nodes it runs on, the root first."""

    run: str
    number: int
    configuration: Configuration
    repetition: int
    nodes: tuple[str, ...]

    @property
    def root(self) -> str:
        """The node that is asked, and reads the model."""
        return self.nodes[0]


@dataclass
class Measured:
    """Everything that an attempt brings home."""

    place: AttemptPlace
    variant: Variant
    deliveries: dict[str, FetchResult]
    served: dict[WindowLabel, ServedBy]
    steady_state: SteadyStateWait | None = None
    windows: list[Window] = field(default_factory=list)
    marker: MarkerResult | None = None
    outputs: list[str] = field(default_factory=list)
    scoring: asyncio.Task[SuiteResult] | None = None
    suite: SuiteResult | None = None
    samples: SampleBlock | None = None
    meter: MeterStatus | None = None
    facts_before: dict[str, NodeFacts] = field(default_factory=dict)
    facts_after: dict[str, NodeFacts] = field(default_factory=dict)
    agent_activity: dict[str, AgentActivity] = field(default_factory=dict)
    window_agent_activity: dict[WindowLabel, AgentActivity] = field(default_factory=dict)
    clock_offset_ns: int = 0

    @property
    def output_sha256(self) -> str | None:
        """Return the hash of all token ids that decoding generated; of several jobs, the hash of their hashes."""
        if len(self.outputs) < 2:
            return self.outputs[0] if self.outputs else None
        return hashlib.sha256("".join(self.outputs).encode()).hexdigest()
