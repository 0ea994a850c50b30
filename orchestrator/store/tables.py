"""The journal's tables: how each version made them, and the columns that their rows' checksums cover."""

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

NAME: Final = "the journal"
CURE: Final = (
    "stop the orchestrator, then `epi journal restore` brings the newest good copy back with what is newer than it;"
    " without any copy: epi-backup restore"
)
MIGRATIONS: Final = (
    """
    CREATE TABLE campaign (
        id TEXT PRIMARY KEY, spec TEXT NOT NULL, spec_hash TEXT NOT NULL, state TEXT NOT NULL,
        request TEXT NOT NULL DEFAULT 'none', reason TEXT NOT NULL DEFAULT '', created_utc_ns INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE attempt (
        campaign TEXT NOT NULL REFERENCES campaign (id), run TEXT NOT NULL, number INTEGER NOT NULL,
        outcome TEXT, step TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '', fault TEXT NOT NULL DEFAULT '',
        started_utc_ns INTEGER NOT NULL, ended_utc_ns INTEGER,
        PRIMARY KEY (campaign, run, number)
    ) STRICT;
    CREATE TABLE entry (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, utc_ns INTEGER NOT NULL, campaign TEXT NOT NULL,
        run TEXT NOT NULL DEFAULT '', attempt INTEGER NOT NULL DEFAULT 0, step TEXT NOT NULL DEFAULT '',
        kind TEXT NOT NULL, payload TEXT NOT NULL DEFAULT '{}'
    ) STRICT;
    CREATE INDEX entry_by_step ON entry (campaign, run, step, kind, attempt);
    CREATE TRIGGER entry_is_append_only BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'append-only'); END;
    CREATE TRIGGER entry_is_kept BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'append-only'); END;
    """,
    """
    CREATE INDEX entry_by_campaign ON entry (campaign, seq);
    CREATE INDEX attempt_by_outcome ON attempt (outcome, campaign, run);
    CREATE INDEX campaign_by_time ON campaign (created_utc_ns);
    """,
    """
    CREATE INDEX result_by_step ON entry (campaign, step, seq) WHERE kind = 'result';
    """,
    # Steps under the names they have now (orchestrator.domain.campaign.steps), so that old campaigns go on.
    """
    DROP TRIGGER entry_is_append_only;
    UPDATE entry SET step = replace(step, 'hold_base', 'pin_base') WHERE step LIKE 'hold_base@%';
    UPDATE entry SET step = replace(step, 'obtain_base', 'fetch_base') WHERE step LIKE 'obtain_base%';
    UPDATE entry SET step = replace(step, 'stabilise', 'steady_state') WHERE step LIKE 'stabilise%';
    UPDATE entry SET step = 'interim_analysis' WHERE step = 'look';
    UPDATE attempt SET step = replace(replace(step, 'obtain_base', 'fetch_base'), 'stabilise', 'steady_state');
    CREATE TRIGGER entry_is_append_only BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'append-only'); END;
    """,
    # Rows carry checksums; an entry still cannot be changed, its checksum can be filled in.
    f"""
    DROP TRIGGER entry_is_append_only;
    {" ".join(table.stamp() for table in SUMMED)}
    CREATE TRIGGER entry_is_append_only BEFORE UPDATE OF {", ".join(ENTRY.columns)} ON entry
        BEGIN SELECT RAISE(ABORT, 'append-only'); END;
    """,
)
