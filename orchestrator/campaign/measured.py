"""One attempt of a run, stage by stage: where it takes place, its loaded model, its closed windows, what it measured.

Each stage is a frozen record that is complete when it exists. Not here: how one becomes the next (`attempt`), and what
is made of the last (`evaluation`).
"""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.benchmarks.answer_sets import AnswerSet
from orchestrator.benchmarks.records import SuiteResult, WindowAnswers
from orchestrator.campaign.preparation import Variant
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.steady_state import SteadyStateWait
from orchestrator.domain.run.clocks import ClockOffset, NodeClock
from orchestrator.domain.run.records import ServedBy, WindowLoad
from shared.kernel.clock import NS_PER_S
from shared.kernel.records import Configuration, NodeName, TokenLedger, Window, WindowLabel
from shared.wire.meter_api import MeterStatus
from shared.wire.node_jobs.activity import AgentActivity
from shared.wire.node_jobs.artifacts import FetchResult
from shared.wire.node_jobs.host import NodeFacts
from shared.wire.node_jobs.workloads import MarkerResult, WorkloadResult


@dataclass(frozen=True)
class AttemptPlace:
    """Which attempt this is, and the nodes it runs on, the root first."""

    run: RunReference
    number: int
    configuration: Configuration
    nodes: tuple[NodeName, ...]

    @property
    def root(self) -> NodeName:
        """The node that is asked, and reads the model."""
        return self.nodes[0]


@dataclass(frozen=True)
class LoadedModel:
    """An attempt whose engine has its model; nothing is measured yet."""

    place: AttemptPlace
    variant: Variant
    deliveries: Mapping[NodeName, FetchResult]
    served: ServedBy
    answers: AnswerSet | None = None
    """All answers, where the cluster gives them once, before the windows."""


@dataclass(frozen=True)
class IdleWindow:
    """The first window, and what was seen of the lab in the gap before it."""

    window: Window
    clocks: Mapping[NodeName, ClockOffset]
    """Each node's clock against ours."""
    meter: MeterStatus
    facts: Mapping[NodeName, NodeFacts]
    activity: Mapping[NodeName, AgentActivity]
    """What the agents had done until then."""


@dataclass(frozen=True)
class ScoreWindow:
    """The score window when the nodes have answered: the suite still counts."""

    scoring: asyncio.Task[SuiteResult]
    served: ServedBy
    answers: WindowAnswers

    @property
    def activity(self) -> tuple[AgentActivity, ...]:
        """What the root's agent did in each of the suite's jobs, where it tells."""
        return tuple(one.agent for one in self.answers.spans if one.agent is not None)


@dataclass(frozen=True)
class ClosedWindows:
    """An attempt that needs no node any more; the suite still counts the answers."""

    loaded: LoadedModel
    steady_state: SteadyStateWait
    idle: IdleWindow
    marker: MarkerResult
    prefill: tuple[WorkloadResult, ...]
    decode: tuple[WorkloadResult, ...]
    score: ScoreWindow | None
    """None where others answer the questions and this run asks no sample."""
    facts_after: Mapping[NodeName, NodeFacts]
    activity_after: Mapping[NodeName, AgentActivity]
    clocks_after: Mapping[NodeName, ClockOffset]
    loads: tuple[WindowLoad, ...]

    def clocks(self) -> dict[NodeName, NodeClock]:
        """Return each node's clock over the attempt."""
        before = self.idle.clocks
        return {node: NodeClock(before=before[node], after=after) for node, after in self.clocks_after.items()}

    def windows(self) -> tuple[Window, ...]:
        """Return all windows in order, in the orchestrator's time."""
        root = self.loaded.place.root
        asked = None if self.score is None else self.score.answers
        return (
            self.idle.window,
            self._window("marker", self.marker.start_utc_ns, self.marker.end_utc_ns, node=root),
            *(self._workload("prefill", one) for one in self.prefill),
            *(self._workload("decode", one) for one in self.decode),
            *(() if asked is None else (self._window("score", asked.start_utc_ns, asked.end_utc_ns, asked.ledger),)),
        )

    def _workload(self, label: WindowLabel, result: WorkloadResult) -> Window:
        """Return a workload's window with the time of each request, by which a stall shows."""
        window = self._window(label, result.start_utc_ns, result.end_utc_ns, result.ledger)
        seconds = tuple((one.end_utc_ns - one.start_utc_ns) / NS_PER_S for one in result.requests)
        return window.model_copy(update={"request_s": seconds})

    def _window(
        self, label: WindowLabel, start_utc_ns: int, end_utc_ns: int, ledger: TokenLedger | None = None,
        node: NodeName | None = None,
    ) -> Window:  # fmt: skip
        """Tell a window of the root node's time in ours."""
        clock = self.clocks()[self.loaded.place.root]
        return Window(
            label=label, start_utc_ns=clock.ours(start_utc_ns), end_utc_ns=clock.ours(end_utc_ns),
            ledger=ledger or TokenLedger(), node=node,
        )  # fmt: skip

    def marker_in_our_time(self) -> MarkerResult:
        """Return the marker load in the orchestrator's time."""
        marker, clock = self.marker, self.clocks()[self.loaded.place.root]
        return MarkerResult(
            start_utc_ns=clock.ours(marker.start_utc_ns), end_utc_ns=clock.ours(marker.end_utc_ns),
            on=tuple((clock.ours(start), clock.ours(end)) for start, end in marker.on),
        )  # fmt: skip

    def served(self) -> dict[WindowLabel, ServedBy]:
        """Return the engine of every window with tokens, and of idle."""
        usual = self.loaded.served
        served: dict[WindowLabel, ServedBy] = {"idle": usual, "prefill": usual, "decode": usual}
        return served if self.score is None else served | {"score": self.score.served}

    def window_agent_activity(self) -> dict[WindowLabel, AgentActivity]:
        """Return what the root's agent did in the windows; of several of one label, in the least quiet one."""
        found: dict[WindowLabel, Sequence[AgentActivity]] = {
            "prefill": _told(self.prefill), "decode": _told(self.decode),
            "score": () if self.score is None else self.score.activity,
        }  # fmt: skip
        return {label: max(each, key=lambda one: one.agent_cpu_share) for label, each in found.items() if each}


@dataclass(frozen=True)
class MeasuredRun:
    """Everything that an attempt measured but the power trace, which the meter's bridge keeps: made once."""

    place: AttemptPlace
    variant: Variant
    deliveries: Mapping[NodeName, FetchResult]
    served: Mapping[WindowLabel, ServedBy]
    steady_state: SteadyStateWait
    windows: tuple[Window, ...]
    marker: MarkerResult
    output_sha256: str | None
    """Of all token ids that decoding generated; of several jobs, the hash of their hashes."""
    window_answers: WindowAnswers | None
    """What was answered in the score window, where there was one; it is counted when all this is safely kept."""
    answers: AnswerSet | None
    """What the accuracy is of, where others than the score window answered and have done so already."""
    trace_start_utc_ns: int
    trace_end_utc_ns: int
    """The part of the meter's trace that the windows need; it is read when all this is safely kept."""
    meter: MeterStatus
    facts_before: Mapping[NodeName, NodeFacts]
    facts_after: Mapping[NodeName, NodeFacts]
    agent_activity: Mapping[NodeName, AgentActivity]
    """From before the first window to after the last."""
    window_agent_activity: Mapping[WindowLabel, AgentActivity]
    clocks: Mapping[NodeName, NodeClock]
    window_loads: tuple[WindowLoad, ...]


def hash_of_outputs(results: Iterable[WorkloadResult]) -> str | None:
    """Return the hash of all token ids of a decode workload, None where the engine tells none."""
    hashes = [one.output_sha256 for one in results if one.output_sha256 is not None]
    if len(hashes) < 2:
        return hashes[0] if hashes else None
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _told(results: Iterable[WorkloadResult]) -> tuple[AgentActivity, ...]:
    return tuple(one.agent for one in results if one.agent is not None)
