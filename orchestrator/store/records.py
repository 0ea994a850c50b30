"""What the journal gives back: campaigns, attempts, entries, and the figures of a run."""

from typing import Any, Literal

from pydantic import Field

from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.domain.campaign.states import AttemptOutcome, CampaignState, Request
from orchestrator.domain.run.findings import Verdict
from shared.kernel.records import CampaignId, Record

EntryKind = Literal["state", "intent", "result", "failure", "interrupted", "attempt"]


class CampaignHead(Record):
    """Where a campaign is; `request` is what somebody asked for and the runner has not yet done."""

    id: str
    spec_hash: str
    state: CampaignState
    request: Request
    reason: str
    created_utc_ns: int


class Campaign(CampaignHead):
    """A campaign and where it is."""

    spec: CampaignSpec


class UnreadableCampaign(CampaignHead):
    """A campaign whose spec this version cannot read, and why; it keeps its state, is listed, and is not run."""

    defect: str


class Attempt(Record):
    """One try at a run; `fault` says who has to act when it failed."""

    run: RunReference
    number: int
    outcome: AttemptOutcome | None
    step: str
    reason: str
    fault: str
    started_utc_ns: int
    ended_utc_ns: int | None


class RunFigures(Record):
    """What the journal keeps of an evaluated run: the payload of the result of `evaluate`. Spans are UTC ns."""

    attempt: int
    epi: float | None = None
    joules_per_token: float | None = None
    accuracy: float | None = None
    validity: Verdict
    reason: str = Field(default="", description="why there is no EPI")
    windows: tuple[tuple[int, int], ...]
    waits: tuple[tuple[int, int], ...] = Field(default=(), description="before the first window, for a steady state")


class Entry(Record):
    """One line of the journal."""

    seq: int
    utc_ns: int
    campaign: CampaignId
    run: str = Field(default="", description="the run, or what else of the campaign the entry is about")
    attempt: int = 0
    step: str = ""
    kind: EntryKind
    payload: dict[str, Any] = Field(default_factory=dict)
