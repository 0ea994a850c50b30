"""The journal's tables and the columns that their rows' checksums cover. Not here: the schema (`journal`)."""

from typing import Final

from shared.files.row_sums import SummedTable

CAMPAIGN: Final = SummedTable(
    "campaign", ("id", "spec", "spec_hash", "state", "request", "reason", "created_utc_ns")
)  # fmt: skip
ATTEMPT: Final = SummedTable(
    "attempt",
    ("campaign", "run", "number", "outcome", "step", "reason", "fault", "started_utc_ns", "ended_utc_ns"),
)
ENTRY: Final = SummedTable("entry", ("seq", "utc_ns", "campaign", "run", "attempt", "step", "kind", "payload"))
SUMMED: Final = (CAMPAIGN, ATTEMPT, ENTRY)
