"""What of the journal is told in the log too: campaigns and attempts as they begin and end, results, failures.

The journal is the memory; this is for whoever reads the log. Not here: notices to people (`orchestrator.notify`).
"""

import logging

from orchestrator.store.records import Entry
from shared.service.logs import log_fields

log = logging.getLogger(__name__)

_BAD = ("failed", "interrupted")


def log_entry(entry: Entry) -> None:
    """Log an entry that a reader of the log would miss; a listener of the journal."""
    told = _told(entry)
    if told is None:
        return
    level, text = told
    with log_fields(campaign=entry.campaign, run=entry.run, attempt=entry.attempt or ""):
        log.log(level, "%s", text)


def _told(entry: Entry) -> tuple[int, str] | None:
    payload = entry.payload
    state, reason = str(payload.get("state", "")), payload.get("reason")
    why = f": {reason}" if reason else ""
    level = logging.WARNING if state in _BAD else logging.INFO
    match entry.kind:
        case "state" if state:
            return level, f"campaign {state}{why}"
        case "state":
            return logging.INFO, f"campaign: asked for {payload.get('request')}"
        case "attempt":
            return level, f"attempt {state}{why}"
        case "failure":
            return logging.WARNING, f"{entry.step} failed: {payload.get('message')}"
        case "interrupted":
            return logging.WARNING, f"job {payload.get('job')} was stopped on {payload.get('agent')}"
        case "result" if entry.step.startswith("damaged@"):
            sha256, found = str(payload.get("sha256"))[:12], str(payload.get("found_sha256"))[:12]
            agent = entry.step.partition("@")[2]
            return logging.WARNING, f"{agent}: artifact {sha256} was damaged (hash {found}) and is set aside"
        case "result" if entry.step == "evaluate":
            epi = payload.get("epi")
            return logging.INFO, f"no EPI{why}" if epi is None else f"EPI {epi:.4g} J/(token*accuracy)"
    return None
