"""From journal entries to notices: the few things a person away from the lab wants to know."""

from orchestrator.settings import NoticeKind
from orchestrator.store.records import Entry, RunFigures
from shared.kernel.clock import iso_utc
from shared.kernel.records import CampaignId, Record

_OF_STATE: dict[str, NoticeKind] = {
    "running": "started",
    "paused": "paused",
    "finished": "finished",
    "failed": "failed",
    "cancelled": "cancelled",
}


class Notice(Record):
    """One thing that happened; `seq` is the journal entry's, so that a receiver can drop repeats."""

    seq: int
    timestamp_utc: str
    kind: NoticeKind
    campaign: CampaignId
    run: str = ""
    text: str
    epi: float | None = None
    joules_per_token: float | None = None
    accuracy: float | None = None


def notice_of(entry: Entry) -> Notice | None:
    """Return the notice that an entry deserves, or None."""
    payload = entry.payload
    kind: NoticeKind | None = None
    text = ""
    figures: RunFigures | None = None
    if entry.kind == "state" and "state" in payload:
        kind = _OF_STATE.get(str(payload["state"]))
        text = f"{entry.campaign} is {payload['state']}" + (f": {payload['reason']}" if payload.get("reason") else "")
    elif entry.kind == "result" and entry.step == "evaluate":
        kind = "run_done"
        figures = RunFigures.model_validate(payload)
        epi = figures.epi
        figure = f"no EPI: {figures.reason}" if epi is None else f"EPI {epi:.4g} J/(token*accuracy)"
        text = f"{entry.campaign}: {entry.run} done, {figure}"
    elif entry.kind == "attempt" and payload.get("state") == "failed":
        kind = "attempt_failed"
        text = f"{entry.campaign}: {entry.run} attempt {entry.attempt} failed: {payload.get('reason')}"
    if kind is None:
        return None
    return Notice(
        seq=entry.seq, timestamp_utc=iso_utc(entry.utc_ns), kind=kind, campaign=entry.campaign, run=entry.run,
        text=text,
        epi=None if figures is None else figures.epi,
        joules_per_token=None if figures is None else figures.joules_per_token,
        accuracy=None if figures is None else figures.accuracy,
    )  # fmt: skip
