"""Bringing a damaged or lost journal back: the newest sound copy, and everything that is newer than it.

Newer are the sound rows of the damaged journal itself, the runs whose result files are written (a measured run is on
disk before it is journaled as done), and the measured runs that wait for their evaluation. The damaged files are kept
aside. Campaigns that ran are paused, so that somebody looks first; attempts get numbers that no lost one can have had,
since the agents still know its jobs.

Works on files, with the orchestrator stopped. Not here: the command line (`orchestrator.cli.journal`).
"""

import asyncio
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from orchestrator.campaign.evaluation import figures_of
from orchestrator.campaign.pending import kept_runs
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.results.files import list_runs, read_run
from orchestrator.store.copies import JournalCopies, JournalCopy, damage_of
from orchestrator.store.salvage import Salvaged, take_over
from orchestrator.store.tables import CURE, MIGRATIONS, NAME, SUMMED
from shared.files.atomic import move_into_place
from shared.files.row_sums import keep_sums
from shared.files.sqlite import open_database
from shared.kernel.clock import utc_ns
from shared.kernel.errors import DataError, EpiError
from shared.service.daemon import LOCK_NAME
from shared.service.lock import held_alone

_ENDS: Final = ("", "-wal", "-shm")
_NUMBERS_LEFT_FREE: Final = 100
_OVER: Final = ("finished", "cancelled")


@dataclass(frozen=True)
class Restored:
    """What was done: `imported` are runs taken from result files, `notes` what somebody has to see to."""

    copy: JournalCopy
    aside: Path | None
    salvaged: Salvaged
    imported: tuple[str, ...]
    waiting: tuple[str, ...]
    notes: tuple[str, ...]


def restore_journal(state_dir: Path, results_dir: Path) -> Restored:
    """Put the newest sound copy, with all that is newer, in the place of the journal.

    Raises:
        ConflictError: the orchestrator runs.
        DataError: there is no sound copy.
        StorageError: the disk does not take it; the journal is as it was.
    """
    journal = state_dir / "journal.sqlite"
    with ExitStack() as stack:
        for lock in (state_dir / LOCK_NAME, journal.with_suffix(".lock")):
            stack.enter_context(held_alone(lock, "orchestrator"))
        copy, notes = _newest_sound(JournalCopies(journal))
        aside = _put_aside(journal)
        beside = journal.with_name(f".{journal.name}.restored")
        for end in _ENDS:
            _with(beside, end).unlink(missing_ok=True)
        shutil.copyfile(copy.path, beside)
        asyncio.run(_brought_up_to_date(beside))
        with closing(sqlite3.connect(beside, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            keep_sums(db, SUMMED)
            db.execute("BEGIN IMMEDIATE")
            salvaged = Salvaged() if aside is None else take_over(db, aside / journal.name)
            imported = tuple(_from_result_trees(db, results_dir, notes))
            waiting = tuple(_from_pending(db, state_dir))
            _pause_campaigns(db, copy)
            db.execute("COMMIT")
            db.execute("PRAGMA journal_mode = DELETE")
        if (damage := damage_of(beside)) is not None:
            raise DataError(f"what was restored is not sound: {damage}", where=str(beside), hint=CURE)
        _as_owned_by(state_dir, beside, aside)
        for end in ("-wal", "-shm"):  # of the damaged one; they are aside
            _with(journal, end).unlink(missing_ok=True)
        move_into_place(beside, journal)
    return Restored(copy, aside, salvaged, imported, waiting, tuple(notes))


def _with(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _newest_sound(copies: JournalCopies) -> tuple[JournalCopy, list[str]]:
    notes: list[str] = []
    for copy in copies.newest_first():
        if (damage := damage_of(copy.path)) is None:
            return copy, notes
        notes.append(f"{copy.path} is damaged and was passed over: {damage}")
    raise DataError(
        f"{NAME} has no {'sound ' if notes else ''}copy", where=str(copies.folder),
        hint="bring the whole state folder back: epi-backup restore",
    )  # fmt: skip


def _put_aside(journal: Path) -> Path | None:
    """Copy the damaged journal and what belongs to it into a folder of its own; None where there is none any more."""
    there = [path for end in _ENDS if (path := _with(journal, end)).is_file()]
    if not there:
        return None
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = journal.with_name(f"journal-broken-{moment}")
    aside.mkdir()
    for path in there:
        shutil.copy2(path, aside / path.name)
    return aside


async def _brought_up_to_date(path: Path) -> None:
    """Bring a copy that an earlier version made to the schema of today."""
    await (await open_database(path, MIGRATIONS, name="the journal's copy", cure=CURE, summed=SUMMED)).close()
    _with(path, ".made").unlink(missing_ok=True)


def _from_result_trees(db: sqlite3.Connection, results_dir: Path, notes: list[str]) -> Iterator[str]:
    """Journal every run whose result files are whole and of which the journal does not know; yield its name."""
    known = {row[0] for row in db.execute("SELECT id FROM campaign")}
    for head in sorted(results_dir.glob("*/campaign.json")):
        campaign = head.parent.name
        if campaign not in known:
            notes.append(
                f"{head.parent} holds results of a campaign that the copy does not know; they are as they were, and a"
                f" new campaign of this id would measure its runs again: give it a new id"
            )
            continue
        try:
            for run in list_runs(head.parent):
                if not _is_evaluated(db, campaign, run):
                    _import(db, campaign, head.parent, run)
                    yield f"{campaign}/{run}"
        except EpiError as error:
            notes.append(f"not taken from the results: {error}")


def _is_evaluated(db: sqlite3.Connection, campaign: str, run: RunReference) -> bool:
    sql = "SELECT 1 FROM entry WHERE campaign = ? AND run = ? AND step = 'evaluate' AND kind = 'result' LIMIT 1"
    return db.execute(sql, (campaign, str(run))).fetchone() is not None


def _import(db: sqlite3.Connection, campaign: str, folder: Path, run: RunReference) -> None:
    files = read_run(folder, run)
    number, began = files.run.attempt, files.run.timestamp_utc_ns
    ended = max(window.end_utc_ns for window in files.run.windows)
    figures = figures_of(files.run, files.epi.evaluation).model_dump(mode="json")
    db.execute(
        "INSERT INTO attempt (campaign, run, number, outcome, step, started_utc_ns, ended_utc_ns)"
        " VALUES (?, ?, ?, 'done', 'evaluate', ?, ?) ON CONFLICT (campaign, run, number) DO UPDATE"
        " SET outcome = 'done', reason = '', fault = '', ended_utc_ns = excluded.ended_utc_ns",
        (campaign, str(run), number, began, ended),
    )
    _append(db, campaign, str(run), 0, "evaluate", "result", figures)
    payload = {"state": "done", "reason": "", "fault": "", "restored": True}
    _append(db, campaign, str(run), number, "", "attempt", payload)


def _from_pending(db: sqlite3.Connection, state_dir: Path) -> Iterator[str]:
    """Open the attempts again that are measured and wait for their evaluation; yield their names."""
    for campaign, run, number in kept_runs(state_dir):
        known = db.execute("SELECT 1 FROM campaign WHERE id = ?", (campaign,)).fetchone()
        if known is None or _is_evaluated(db, campaign, run):
            continue
        new = db.execute(
            "INSERT INTO attempt (campaign, run, number, step, started_utc_ns) VALUES (?, ?, ?, 'evaluate', ?)"
            " ON CONFLICT (campaign, run, number) DO NOTHING",
            (campaign, str(run), number, utc_ns()),
        ).rowcount
        if new:
            _append(db, campaign, str(run), number, "", "attempt", {"state": "started", "restored": True})
            yield f"{campaign}/{run}/attempt-{number}"


def _pause_campaigns(db: sqlite3.Connection, copy: JournalCopy) -> None:
    restored = f"the journal was restored from its copy of {copy.when}"
    for campaign, state in [(row["id"], row["state"]) for row in db.execute("SELECT id, state FROM campaign")]:
        if state in _OVER:
            continue
        (most,) = db.execute("SELECT coalesce(max(number), 0) FROM attempt WHERE campaign = ?", (campaign,)).fetchone()
        payload: dict[str, object] = {
            "state": state,
            "reason": restored,
            "attempts_from": most + 1 + _NUMBERS_LEFT_FREE,
        }
        if state == "running":
            reason = f"{restored}: look at the runs, then `epi campaign resume`"
            payload |= {"state": "paused", "reason": reason}
            sql = "UPDATE campaign SET state = 'paused', request = 'none', reason = ? WHERE id = ?"
            db.execute(sql, (reason, campaign))
        _append(db, campaign, "", 0, "", "state", payload)


def _append(
    db: sqlite3.Connection, campaign: str, run: str, attempt: int, step: str, kind: str, payload: dict[str, object]
) -> None:
    db.execute(
        "INSERT INTO entry (utc_ns, campaign, run, attempt, step, kind, payload) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (utc_ns(), campaign, run, attempt, step, kind, json.dumps(payload)),
    )


def _as_owned_by(folder: Path, *paths: Path | None) -> None:
    """Give what root has made to the daemon whose folder it is."""
    if os.geteuid() != 0:
        return
    owner = folder.stat()
    for path in paths:
        if path is not None:
            for one in (path, *(path.iterdir() if path.is_dir() else ())):
                os.chown(one, owner.st_uid, owner.st_gid)
                one.chmod(0o700 if one.is_dir() else 0o600)
