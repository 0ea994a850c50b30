"""States of campaigns and runs, and the transitions that are allowed, as tables of data.

State (where it is) is kept apart from outcome (how it ended) and from requests (what somebody asked for).
"""

from typing import Literal

from shared.kernel.errors import ConflictError
from shared.kernel.records import CampaignId

CampaignState = Literal["created", "running", "paused", "finished", "failed", "cancelled"]
RunState = Literal["pending", "running", "done", "failed"]
AttemptOutcome = Literal["done", "failed", "interrupted"]
Request = Literal["none", "pause", "cancel"]

CAMPAIGN_TRANSITIONS: dict[CampaignState, frozenset[CampaignState]] = {
    "created": frozenset({"running", "cancelled"}),
    "running": frozenset({"paused", "finished", "failed", "cancelled"}),
    # A paused or failed campaign goes on when the user resumes it; finished runs are kept.
    "paused": frozenset({"running", "cancelled"}),
    "failed": frozenset({"running", "cancelled"}),
    "cancelled": frozenset({"running"}),
    "finished": frozenset(),
}

ATTEMPT_TRANSITIONS: dict[AttemptOutcome | None, frozenset[AttemptOutcome]] = {
    # An attempt is open until it has its outcome, and keeps that for ever: another try is another attempt.
    None: frozenset({"done", "failed", "interrupted"}),
    "done": frozenset(),
    "failed": frozenset(),
    "interrupted": frozenset(),
}

TERMINAL_CAMPAIGN: frozenset[CampaignState] = frozenset({"finished", "failed", "cancelled"})


def check_transition(campaign_id: CampaignId, old: CampaignState, new: CampaignState) -> None:
    """Refuse a transition that is not in the table.

    Raises:
        ConflictError: the campaign cannot go from `old` to `new`.
    """
    if new not in CAMPAIGN_TRANSITIONS[old]:
        raise ConflictError(f"a campaign that is {old} cannot become {new}", where=campaign_id)


def check_outcome(attempt: str, old: AttemptOutcome | None, new: AttemptOutcome) -> None:
    """Refuse a second outcome.

    Raises:
        ConflictError: the attempt cannot go from `old` to `new`.
    """
    if new not in ATTEMPT_TRANSITIONS[old]:
        raise ConflictError(f"an attempt that is {old} cannot become {new}", where=attempt)
