"""What the orchestrator's REST and WebSocket API answers. The dashboard and the CLI use only this.

| endpoint | answer |
|---|---|
| `GET /v1/health` | `shared.wire.protocol.Health` |
| `POST`, `GET`, `DELETE /v1/session` | `shared.wire.session_api.BrowserSession`: a browser signs in, and out |
| `GET /v1/lab` | `LabStatus`: agents, facts, meter (cached while a window is open) |
| `POST /v1/lab/nodes/{node}/find` | body `FindNodeRequest`; `FindNodeResult` of `campaign.find_channel` |
| `GET /v1/lab/artifacts`, `POST /v1/lab/scrub` | list of `orchestrator.campaign.scrubber.AgentArtifacts` |
| `POST /v1/campaigns` | body `CampaignSpec`; answers `CampaignStatus` (the same spec twice is one campaign) |
| `GET /v1/campaigns` | list of `CampaignSummary`, newest first |
| `GET /v1/campaigns/{id}` | `CampaignStatus` |
| `GET /v1/specs`, `GET /v1/specs/{name}` | named specs and examples; a spec to be edited |
| `POST /v1/specs/validate`, `POST /v1/specs/plan?like=` | what a spec would run; nothing is started |
| `POST /v1/campaigns/{id}/pause`, `/resume`, `/retry`, `/cancel` | `CampaignStatus`; obeyed between windows |
| `GET /v1/campaigns/{id}/results` | list of `ConfigurationResult` |
| `GET /v1/campaigns/{id}/runs/{configuration}/{repetition}` | `RunDetail` |
| `GET /v1/campaigns/{id}/runs/{configuration}/{repetition}/files/{kind}` | kind: epi, run, benchmark, power_trace |
| `GET /v1/campaigns/{id}/runs/{configuration}/{repetition}/power?columns=` | `PowerView`, for charts |
| `GET /v1/campaigns/{id}/analysis` | `CampaignAnalysis`: recommendation, hypotheses, operating points, Pareto |
| `GET /v1/campaigns/{id}/export` | the result tree as .tar.gz |
| `GET /v1/entries?since=&limit=` | list of `orchestrator.store.records.Entry` |
| `GET /v1/power?seconds=` | list of `shared.wire.meter_api.LivePower`, the recent past (at most 600 s) |
| `WS /v1/live?since=` | `orchestrator.campaign.live.LiveMessage`: power, entry, progress |
"""

from typing import Any

from pydantic import Field

from orchestrator.domain.analysis.deliveries import DeliveryTotal
from orchestrator.domain.analysis.interim import InterimAnalysis
from orchestrator.domain.analysis.utilisation import Utilisation
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.domain.campaign.states import AttemptOutcome, CampaignState, Request, RunState
from orchestrator.domain.run.clocks import NodeClock
from orchestrator.domain.run.disturbances import ForeignLoad
from orchestrator.domain.run.findings import Validity
from shared.kernel.errors import ErrorPayload
from shared.kernel.records import CampaignId, Configuration, ConfigurationId, NodeName, Record, Window, WindowLabel
from shared.wire.meter_api import MeterStatus
from shared.wire.node_jobs.host import NodeFacts
from shared.wire.protocol import Health


class AgentStatus(Record):
    """One agent as last seen; `error` says why it did not answer."""

    name: NodeName
    service: str
    url: str
    health: Health | None = None
    facts: NodeFacts | None = None
    error: ErrorPayload | None = None
    seen_utc_ns: int | None = None


class LabStatus(Record):
    """The whole lab. While a window is open nothing is asked, `cached` is true and the ages grow.

    `health` is the orchestrator's own, and always of now.
    """

    health: Health
    agents: tuple[AgentStatus, ...]
    meter: MeterStatus | None
    emulated: bool
    cached: bool
    utc_ns: int


class AttemptStatus(Record):
    """One attempt of a run; every attempt is kept."""

    number: int
    outcome: AttemptOutcome | None = None
    step: str = ""
    reason: str = ""
    started_utc_ns: int
    ended_utc_ns: int | None = None


class RunStatus(Record):
    """One run (configuration x repetition)."""

    configuration: ConfigurationId
    repetition: int
    state: RunState
    step: str = ""
    attempts: tuple[AttemptStatus, ...] = ()

    @property
    def reference(self) -> RunReference:
        """Which run it is."""
        return RunReference(configuration=self.configuration, repetition=self.repetition)


class CampaignSummary(Record):
    """One line of the list of campaigns.

    One whose spec this version cannot read is not `readable`: its state is kept, its reason says why, of its runs only
    those that are done are known.
    """

    id: CampaignId
    state: CampaignState
    request: Request
    reason: str = ""
    runs_done: int
    runs_total: int
    created_utc_ns: int
    emulated: bool
    readable: bool = True


class CampaignStatus(CampaignSummary):
    """A campaign with its runs; `step` is what is being done now, `eta_s` the estimated time to its end."""

    spec: CampaignSpec
    spec_hash: str
    step: str = ""
    progress: float = 0.0
    message: str = ""
    eta_s: float | None = None
    utilisation: Utilisation | None = None
    interim_analyses: tuple[InterimAnalysis, ...] = ()
    deliveries: tuple[DeliveryTotal, ...] = ()
    configurations: tuple[Configuration, ...]
    runs: tuple[RunStatus, ...]


class ConfigurationResult(Record):
    """A configuration's figures over its finished repetitions; null where unknown. EPI in J/(token x accuracy)."""

    configuration: Configuration
    reference: ConfigurationId | None
    repetitions: int
    joules_per_token: float | None
    tokens_per_second: float | None
    accuracy_composite: float | None
    accuracies: dict[str, float | None]
    epi: float | None
    epi_low: float | None = None
    epi_high: float | None = None
    epi_ratio: float | None = None
    epi_ratio_low: float | None = None
    epi_ratio_high: float | None = None
    verdict: str | None = None
    validity: str | None = None
    emulated: bool
    reason: str = ""


class WindowOtherLoad(Record):
    """What programs other than engine and agent did on each node around one window."""

    label: WindowLabel
    nodes: dict[NodeName, ForeignLoad]


class RunDetail(Record):
    """Everything about one run: attempts, windows, and the result record `epi_NNN.json` when it is done."""

    status: RunStatus
    windows: tuple[Window, ...] = ()
    validity: Validity | None = Field(default=None, description="with what the other repetitions say of it")
    other_load: tuple[WindowOtherLoad, ...] = Field(
        default=(), description="who else used the nodes' processors around each window; (): an earlier version"
    )
    clocks: dict[NodeName, NodeClock] = Field(default_factory=dict, description="before and after, against ours")
    epi: dict[str, Any] | None = None
    files: tuple[str, ...] = ()
