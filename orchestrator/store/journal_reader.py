"""Reading the journal: campaigns, attempts, results and entries as they are now. Not here: anything that writes."""

import json
import sqlite3
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

from pydantic import ValidationError

from orchestrator.domain.campaign.job_keys import AttemptJob
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.store.records import Attempt, Campaign, Entry, EntryKind, UnreadableCampaign
from orchestrator.store.tables import ATTEMPT, CAMPAIGN, ENTRY
from shared.files.database import Database
from shared.files.row_sums import SummedTable
from shared.kernel.defects import first_defect
from shared.kernel.errors import DataError, NotFoundError
from shared.kernel.records import CampaignId

_NEWEST_RESULT = (
    "SELECT * FROM entry WHERE campaign = ? AND run = ? AND step = ? AND kind = 'result' AND attempt = ?"
    " ORDER BY seq DESC LIMIT 1"
)
_SINCE_RUNNING = (
    "SELECT * FROM entry WHERE campaign = ? AND run = ? AND step = ? AND kind = ? AND seq > ("
    "  SELECT COALESCE(MAX(seq), 0) FROM entry WHERE campaign = ? AND run = '' AND step = '' AND kind = 'state'"
    "  AND json_extract(payload, '$.state') = 'running') ORDER BY seq"
)


class JournalReader:
    """What can be asked of a journal."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def _all(self, whole: SummedTable, sql: str, *values: object) -> Sequence[sqlite3.Row]:
        """Return whole rows of a table, each as it was written."""
        return await self._db.read(lambda db: whole.checked(db.execute(sql, values).fetchall()))

    async def _first(self, whole: SummedTable, sql: str, *values: object) -> sqlite3.Row | None:
        found = await self._db.read(lambda db: whole.checked(db.execute(sql, values).fetchmany(1)))
        return found[0] if found else None

    async def _counted(self, sql: str, *values: object) -> Sequence[sqlite3.Row]:
        return await self._db.read(lambda db: db.execute(sql, values).fetchall())

    async def campaign(self, campaign_id: CampaignId) -> Campaign:
        """Return a campaign.

        Raises:
            NotFoundError: no such campaign.
            DataError: this version cannot read its spec.
        """
        return readable(await self.find(campaign_id))

    async def find(self, campaign_id: CampaignId) -> Campaign | UnreadableCampaign:
        """Return a campaign, or what is known of one that cannot be read.

        Raises:
            NotFoundError: no such campaign.
        """
        return await self._db.read(partial(find_campaign, campaign_id=campaign_id))

    async def campaigns(self, limit: int = -1, before_utc_ns: int = 2**63 - 1) -> list[Campaign | UnreadableCampaign]:
        """Return campaigns created before `before_utc_ns`, newest first; a negative limit means all."""
        rows = await self._all(
            CAMPAIGN,
            "SELECT * FROM campaign WHERE created_utc_ns < ? ORDER BY created_utc_ns DESC LIMIT ?",
            before_utc_ns, limit,
        )  # fmt: skip
        return [_campaign(row) for row in rows]

    async def running(self) -> list[Campaign | UnreadableCampaign]:
        """Return the campaigns that are to be run, oldest first; those that cannot be read are nobody's to run."""
        rows = await self._all(CAMPAIGN, "SELECT * FROM campaign WHERE state = 'running' ORDER BY created_utc_ns")
        return [_campaign(row) for row in rows]

    async def attempts(self, campaign_id: CampaignId) -> dict[RunReference, list[Attempt]]:
        """Return run -> its attempts in order."""
        found: dict[RunReference, list[Attempt]] = {}
        sql = "SELECT * FROM attempt WHERE campaign = ? ORDER BY run, number"
        for row in await self._all(ATTEMPT, sql, campaign_id):
            values = {column: row[column] for column in ATTEMPT.columns if column != "campaign"}
            attempt = Attempt.model_validate(values)
            found.setdefault(attempt.run, []).append(attempt)
        return found

    async def last_result(
        self, campaign_id: CampaignId, run: RunReference | str, step: str, attempt: int = 0
    ) -> dict[str, Any] | None:
        """Return the newest result of a step, or None."""
        row = await self._first(ENTRY, _NEWEST_RESULT, campaign_id, str(run), step, attempt)
        if row is None:
            return None
        payload: dict[str, Any] = json.loads(row["payload"])
        return payload

    async def result_with(self, key: str, value: str) -> dict[str, Any] | None:
        """Return the newest result of any campaign whose payload has `value` under `key`; None without one."""
        row = await self._first(
            ENTRY,
            "SELECT * FROM entry WHERE kind = 'result' AND json_extract(payload, ?) = ?"
            " ORDER BY seq DESC LIMIT 1",
            f"$.{key}", value,
        )  # fmt: skip
        if row is None:
            return None
        payload: dict[str, Any] = json.loads(row["payload"])
        return payload

    async def results(self, campaign_id: CampaignId, *steps: str) -> dict[str, list[tuple[str, dict[str, Any]]]]:
        """Return step -> the run and the payload of each of its results, oldest first."""
        found: dict[str, list[tuple[str, dict[str, Any]]]] = {step: [] for step in steps}
        marks = ", ".join("?" * len(steps))
        rows = await self._all(
            ENTRY,
            f"SELECT * FROM entry WHERE campaign = ? AND kind = 'result' AND step IN ({marks})"
            " ORDER BY seq",
            campaign_id, *steps,
        )  # fmt: skip
        for row in rows:
            found[row["step"]].append((row["run"], json.loads(row["payload"])))
        return found

    async def runs_done(self) -> dict[str, int]:
        """Return campaign id -> number of its runs that are done."""
        rows = await self._counted(
            "SELECT campaign, COUNT(DISTINCT run) AS n FROM attempt WHERE outcome = 'done' GROUP BY campaign"
        )
        return {row["campaign"]: row["n"] for row in rows}

    async def count(self, campaign_id: CampaignId, run: RunReference | str, step: str, kind: EntryKind) -> int:
        """Return how many entries of a kind a step has."""
        (row,) = await self._counted(
            "SELECT COUNT(*) FROM entry WHERE campaign = ? AND run = ? AND step = ? AND kind = ?",
            campaign_id, str(run), step, kind,
        )  # fmt: skip
        return int(row[0])

    async def since_running(
        self, campaign_id: CampaignId, run: RunReference | str, step: str, kind: EntryKind
    ) -> list[dict[str, Any]]:
        """Return the payloads of a step's entries of a kind since the campaign was last set running, oldest first.

        What broke before somebody resumed the campaign does not count any more. Attempts have the step "".
        """
        rows = await self._all(ENTRY, _SINCE_RUNNING, campaign_id, str(run), step, kind, campaign_id)
        return [json.loads(row["payload"]) for row in rows]

    async def last_job(self, campaign_id: CampaignId, run: RunReference, attempt: int) -> AttemptJob | None:
        """Return the last job that was intended in an attempt, None without any."""
        row = await self._first(
            ENTRY,
            "SELECT * FROM entry WHERE campaign = ? AND run = ? AND kind = 'intent' AND attempt = ?"
            " AND json_extract(payload, '$.job') IS NOT NULL ORDER BY seq DESC LIMIT 1",
            campaign_id, str(run), attempt,
        )  # fmt: skip
        return None if row is None else AttemptJob.parse(json.loads(row["payload"])["job"])

    async def entries(self, since: int = 0, limit: int = 200, campaign_id: CampaignId | None = None) -> list[Entry]:
        """Return entries with a sequence number above `since`, oldest first."""
        of_one = "" if campaign_id is None else " AND campaign = ?"
        values = (since, limit) if campaign_id is None else (since, campaign_id, limit)
        rows = await self._all(ENTRY, f"SELECT * FROM entry WHERE seq > ?{of_one} ORDER BY seq LIMIT ?", *values)
        return [_entry(row) for row in rows]

    async def last_seq(self, campaign_id: CampaignId | None = None) -> int:
        """Return the sequence number of the newest entry, of one campaign or of all; 0 without any."""
        of_one = "" if campaign_id is None else " WHERE campaign = ?"
        values = () if campaign_id is None else (campaign_id,)
        (row,) = await self._counted(f"SELECT MAX(seq) FROM entry{of_one}", *values)
        return int(row[0] or 0)


def find_campaign(db: sqlite3.Connection, campaign_id: CampaignId) -> Campaign | UnreadableCampaign:
    """Return a campaign, or what is known of one that cannot be read.

    Raises:
        NotFoundError: no such campaign.
    """
    rows = CAMPAIGN.checked(db.execute("SELECT * FROM campaign WHERE id = ?", (campaign_id,)).fetchall())
    if not rows:
        raise NotFoundError("no such campaign", where=campaign_id, hint="GET /v1/campaigns lists them")
    return _campaign(rows[0])


@lru_cache(maxsize=1024)
def _spec(text: str) -> CampaignSpec:
    """Parse once what lists of campaigns ask for again and again; a spec is frozen."""
    return CampaignSpec.model_validate_json(text)


def readable(campaign: Campaign | UnreadableCampaign) -> Campaign:
    """Return a campaign that can be read.

    Raises:
        DataError: this version cannot read its spec.
    """
    if isinstance(campaign, UnreadableCampaign):
        raise DataError(campaign.defect, where=campaign.id, hint="run it with the version that made it, or cancel it")
    return campaign


def _campaign(row: sqlite3.Row) -> Campaign | UnreadableCampaign:
    head = {key: row[key] for key in ("id", "spec_hash", "state", "request", "reason", "created_utc_ns")}
    try:
        return Campaign(spec=_spec(row["spec"]), **head)
    except ValidationError as error:
        return UnreadableCampaign(defect=f"this version cannot read the campaign's spec: {first_defect(error)}", **head)


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(
        seq=row["seq"], utc_ns=row["utc_ns"], campaign=row["campaign"], run=row["run"], attempt=row["attempt"],
        step=row["step"], kind=row["kind"], payload=json.loads(row["payload"]),
    )  # fmt: skip
