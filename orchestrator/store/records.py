"""What the journal gives back: campaigns, attempts, entries."""

from typing import Any, Literal

from pydantic import Field

from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.domain.campaign.states import AttemptOutcome, CampaignState, Request
from shared.kernel.records import Record

EntryKind = Literal["state", "intent", "result", "failure", "interrupted", "attempt"]


class Campaign(Record):
    """A campaign and where it is; `request` is what somebody asked for and the runner has not yet done."""

    spec: CampaignSpec
    spec_hash: str
    state: CampaignState
    request: Request
    reason: str
    created_utc_ns: int


class Attempt(Record):
    """One try at a run; `fault` says who has to act when it failed."""

    run: str
    number: int
    outcome: AttemptOutcome | None
    step: str
    reason: str
    fault: str
    started_utc_ns: int
    ended_utc_ns: int | None


class Entry(Record):
    """One line of the journal."""

    seq: int
    utc_ns: int
    campaign: str
    run: str = ""
    attempt: int = 0
    step: str = ""
    kind: EntryKind
    payload: dict[str, Any] = Field(default_factory=dict)
