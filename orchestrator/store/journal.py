"""The journal: an append-only list of what was intended and what came of it, and the present state beside it.

Every change of state and the entry that explains it are one transaction, so a kill at any line leaves both or neither.
One process writes: a lock file refuses a second orchestrator. Not here: reading it
(`journal_reader`), and what a step means (`orchestrator.campaign`).
"""

import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.domain.campaign.states import AttemptOutcome, CampaignState, Request, check_outcome, check_transition
from orchestrator.store.journal_reader import JournalReader, find_campaign, readable
from orchestrator.store.records import Campaign, Entry, EntryKind
from orchestrator.store.tables import CURE, MIGRATIONS, NAME, SUMMED
from shared.files.database import Database, touch
from shared.files.sqlite import open_database
from shared.kernel.clock import utc_ns
from shared.kernel.errors import ConflictError, NotFoundError, StorageError
from shared.kernel.records import CampaignId
from shared.service.health import HealthRegistry
from shared.service.lock import held_alone

log = logging.getLogger(__name__)

T = TypeVar("T")

_NEXT_ATTEMPT: Final = """
    SELECT max(
        (SELECT coalesce(max(json_extract(payload, '$.attempts_from')), 1) FROM entry
         WHERE campaign = ? AND run = '' AND step = '' AND kind = 'state'),
        (SELECT coalesce(max(number), 0) + 1 FROM attempt WHERE campaign = ? AND run = ?)
    )"""
"""A journal that was restored may have lost attempts, whose jobs the agents still know: their numbers are not used."""

OnRefused = Callable[[StorageError, int], Awaitable[None]]
"""Awaited when the journal's disk refuses a write, with the number of tries so far; then it is tried again."""


class Journal(JournalReader):
    """The orchestrator's memory. A write that the disk refuses raises StorageError at once, unless `patient`."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self._listeners: list[Callable[[Entry], None]] = []
        self._on_refused: OnRefused | None = None

    def patient(self, on_refused: OnRefused) -> "Journal":
        """Return this very journal, but its writes go on until the disk takes them; `on_refused` waits in between."""
        patient = copy(self)
        patient._on_refused = on_refused
        return patient

    @property
    def strict(self) -> "Journal":
        """This very journal, whose writes are refused at once when the disk takes nothing."""
        strict = copy(self)
        strict._on_refused = None
        return strict

    @property
    def path(self) -> Path:
        """The file."""
        return self._db.path

    def listen(self, listener: Callable[[Entry], None]) -> None:
        """Call `listener` with each entry after it is committed."""
        self._listeners.append(listener)

    def report_to(self, health: HealthRegistry) -> None:
        """Tell the orchestrator's health when nothing can be journaled, and when that works again."""
        self._db.report_to(health, "journal")

    async def ensure_writable(self) -> None:
        """Write a page that changes nothing.

        Raises:
            StorageError: the disk takes nothing.
        """
        await self._write(lambda write: touch(write.db))

    async def create(self, spec: CampaignSpec) -> Campaign:
        """Remember a new campaign, or return the one that has this id and this very spec.

        Raises:
            ConflictError: the id is taken by another spec.
        """

        def change(write: _Write) -> Campaign:
            new = write.db.execute(
                "INSERT INTO campaign (id, spec, spec_hash, state, created_utc_ns) VALUES (?, ?, ?, 'created', ?)"
                " ON CONFLICT (id) DO NOTHING",
                (spec.id, spec.model_dump_json(), spec.spec_hash(), utc_ns()),
            ).rowcount
            campaign = find_campaign(write.db, spec.id)
            if campaign.spec_hash != spec.spec_hash():
                raise ConflictError(
                    "this campaign id exists with another spec", where=spec.id,
                    hint="a campaign's spec is frozen: give the new spec a new id",
                )  # fmt: skip
            if new:
                write.append(spec.id, kind="state", payload={"state": "created"})
            return readable(campaign)

        return await self._write(change)

    async def fill_in(self, spec: CampaignSpec) -> None:
        """Keep what the lab filled into a campaign's spec; the spec itself stays what it was.

        Raises:
            ConflictError: it would be another spec.
        """

        def change(write: _Write) -> None:
            if find_campaign(write.db, spec.id).spec_hash != spec.spec_hash():
                raise ConflictError("a campaign's spec is frozen", where=spec.id)
            write.db.execute("UPDATE campaign SET spec = ? WHERE id = ?", (spec.model_dump_json(), spec.id))

        await self._write(change)

    async def set_state(self, campaign_id: CampaignId, state: CampaignState, reason: str = "") -> None:
        """Move a campaign to `state` and clear its request.

        Raises:
            ConflictError: the transition table does not allow it.
        """

        def change(write: _Write) -> None:
            check_transition(campaign_id, find_campaign(write.db, campaign_id).state, state)
            write.db.execute(
                "UPDATE campaign SET state = ?, reason = ?, request = 'none' WHERE id = ?", (state, reason, campaign_id)
            )
            write.append(campaign_id, kind="state", payload={"state": state, "reason": reason})

        await self._write(change)

    async def set_request(self, campaign_id: CampaignId, request: Request) -> None:
        """Note what somebody asked for; the runner obeys between windows."""

        def change(write: _Write) -> None:
            write.db.execute("UPDATE campaign SET request = ? WHERE id = ?", (request, campaign_id))
            write.append(campaign_id, kind="state", payload={"request": request})

        await self._write(change)

    async def begin_attempt(self, campaign_id: CampaignId, run: RunReference) -> int:
        """Open the next attempt of a run and return its number, from 1."""

        def change(write: _Write) -> int:
            row = write.db.execute(_NEXT_ATTEMPT, (campaign_id, campaign_id, str(run))).fetchone()
            number = int(row[0])
            write.db.execute(
                "INSERT INTO attempt (campaign, run, number, started_utc_ns) VALUES (?, ?, ?, ?)",
                (campaign_id, str(run), number, utc_ns()),
            )
            write.append(campaign_id, run=run, attempt=number, kind="attempt", payload={"state": "started"})
            return number

        return await self._write(change)

    async def end_attempt(
        self, campaign_id: CampaignId, run: RunReference, number: int, outcome: AttemptOutcome, *, reason: str = "",
        fault: str = "",
    ) -> None:  # fmt: skip
        """Close an attempt; it is kept whatever its outcome. `fault` says who has to act, "" nobody.

        Raises:
            NotFoundError: no such attempt.
            ConflictError: it has its outcome already.
        """
        of_it = "WHERE campaign = ? AND run = ? AND number = ?"
        where = f"{campaign_id}/{run}/attempt-{number}"

        def change(write: _Write) -> None:
            row = write.db.execute(f"SELECT outcome FROM attempt {of_it}", (campaign_id, str(run), number)).fetchone()
            if row is None:
                raise NotFoundError("no such attempt", where=where)
            check_outcome(where, row["outcome"], outcome)
            write.db.execute(
                f"UPDATE attempt SET outcome = ?, reason = ?, fault = ?, ended_utc_ns = ? {of_it}",
                (outcome, reason, fault, utc_ns(), campaign_id, str(run), number),
            )
            payload = {"state": outcome, "reason": reason, "fault": fault}
            write.append(campaign_id, run=run, attempt=number, kind="attempt", payload=payload)

        await self._write(change)

    async def append(
        self,
        campaign_id: CampaignId,
        *,
        kind: EntryKind,
        run: RunReference | str = "",
        attempt: int = 0,
        step: str = "",
        payload: dict[str, Any] | None = None,
    ) -> None:
        """Append an entry; an `intent` of an attempt also becomes the attempt's present step.

        `run` may also be what else the entry is about: a configuration, a repetition; empty: the campaign itself.
        """

        def change(write: _Write) -> None:
            if kind == "intent" and attempt:
                write.db.execute(
                    "UPDATE attempt SET step = ? WHERE campaign = ? AND run = ? AND number = ?",
                    (step, campaign_id, str(run), attempt),
                )
            write.append(campaign_id, kind=kind, run=run, attempt=attempt, step=step, payload=payload or {})

        await self._write(change)

    async def _write(self, change: Callable[["_Write"], T]) -> T:
        """Do one change and its entries in one transaction; listeners hear of each entry once it is committed."""
        entries: list[Entry] = []

        def whole(db: sqlite3.Connection) -> T:
            entries.clear()
            return change(_Write(db, entries))

        tries = 0
        while True:
            try:
                return await self._db.write(whole, lambda _: self._tell(entries))
            except StorageError as refused:
                if self._on_refused is None:
                    raise
                tries += 1
                await self._on_refused(refused, tries)

    def _tell(self, entries: list[Entry]) -> None:
        for entry in entries:
            for listener in self._listeners:
                try:
                    listener(entry)
                except Exception:
                    log.exception("a listener of the journal failed on entry %d", entry.seq)


@dataclass(frozen=True)
class _Write:
    """An open transaction and the entries that it appends."""

    db: sqlite3.Connection
    entries: list[Entry]

    def append(
        self,
        campaign_id: CampaignId,
        *,
        kind: EntryKind,
        run: RunReference | str = "",
        attempt: int = 0,
        step: str = "",
        payload: dict[str, Any],
    ) -> None:
        now = utc_ns()
        cursor = self.db.execute(
            "INSERT INTO entry (utc_ns, campaign, run, attempt, step, kind, payload) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (now, campaign_id, str(run), attempt, step, kind, json.dumps(payload)),
        )
        self.entries.append(
            Entry(
                seq=cursor.lastrowid or 0, utc_ns=now, campaign=campaign_id, run=str(run), attempt=attempt, step=step,
                kind=kind, payload=payload,
            )
        )  # fmt: skip


@asynccontextmanager
async def open_journal(path: Path) -> AsyncIterator[Journal]:
    """Open the journal for this process alone.

    Raises:
        ConflictError: another process holds it.
        DataError: it is damaged.
        StorageError: its disk takes nothing.
    """
    with held_alone(path.with_suffix(".lock"), "orchestrator"):
        db = await open_database(path, MIGRATIONS, name=NAME, cure=CURE, summed=SUMMED, indexes_checked=True)
        try:
            yield Journal(db)
        finally:
            await db.close()
