"""What can still be believed of a damaged journal: every row whose checksum holds is as it was written.

A copy of the journal lacks what came after it. The entries are append-only and each row carries its checksum, so all
sound rows of the damaged file can be taken over, whatever happened to the others. Not here: which copy, and what the
result trees know (`orchestrator.campaign.restoring`).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from orchestrator.store.tables import ATTEMPT, CAMPAIGN, ENTRY
from shared.files.row_sums import SummedTable


@dataclass(frozen=True)
class Salvaged:
    """How many rows of a damaged journal were taken over."""

    campaigns: int = 0
    attempts: int = 0
    entries: int = 0


def take_over(db: sqlite3.Connection, damaged: Path) -> Salvaged:
    """Bring what is newer in a damaged journal into `db`, which is one that was copied from it; the caller commits.

    `db` keeps its rows' checksums (`keep_sums`). A damaged file that cannot be opened at all gives nothing.
    """
    try:
        with closing(sqlite3.connect(f"{damaged.absolute().as_uri()}?mode=ro", uri=True)) as old:
            old.row_factory = sqlite3.Row
            old.text_factory = lambda text: text.decode("utf-8", "replace")  # such a row's checksum does not hold
            campaigns = _put(db, CAMPAIGN, ("id",), _sound_rows(old, CAMPAIGN))
            known = {row[0] for row in db.execute("SELECT id FROM campaign")}
            of_known = (row for row in _sound_rows(old, ATTEMPT) if row["campaign"] in known)
            attempts = _put(db, ATTEMPT, ("campaign", "run", "number"), of_known)
            newest = int(db.execute("SELECT coalesce(max(seq), 0) FROM entry").fetchone()[0])
            entries = _put(db, ENTRY, ("seq",), (row for row in _sound_rows(old, ENTRY) if row["seq"] > newest))
    except sqlite3.Error:
        return Salvaged()
    return Salvaged(campaigns, attempts, entries)


def _put(db: sqlite3.Connection, table: SummedTable, key: tuple[str, ...], rows: Iterator[sqlite3.Row]) -> int:
    """Insert new rows and replace those that differ; return how many."""
    others = [column for column in table.columns if column not in key]
    marks = ", ".join("?" * len(table.columns))
    sql = (
        f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({marks}) ON CONFLICT ({', '.join(key)})"
        f" DO UPDATE SET {', '.join(f'{column} = excluded.{column}' for column in others)}"
        f" WHERE ({', '.join(others)}) IS NOT ({', '.join(f'excluded.{column}' for column in others)})"
    )
    if table is ENTRY:
        sql = f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({marks})"
    return sum(db.execute(sql, [row[column] for column in table.columns]).rowcount for row in rows)


def _sound_rows(db: sqlite3.Connection, table: SummedTable) -> Iterator[sqlite3.Row]:
    """Yield each sound row once: from the beginning to the first damaged page, then from the end to the last."""
    seen: set[int] = set()
    for order in ("ASC", "DESC"):
        try:
            for row in db.execute(f"SELECT rowid AS own_id, * FROM {table.name} NOT INDEXED ORDER BY rowid {order}"):
                if row["own_id"] in seen:
                    break  # the two ways have met
                if table.is_sound(row):
                    seen.add(row["own_id"])
                    yield row
        except (sqlite3.Error, IndexError, TypeError):
            continue
