"""Reading the journal: campaigns, attempts, results and entries as they are now. Not here: anything that writes."""

import json
from functools import lru_cache
from typing import Any

import aiosqlite

from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.store.records import Attempt, Campaign, Entry, EntryKind
from shared.kernel.errors import NotFoundError


class JournalReader:
    """What can be asked of a journal."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db

    async def campaign(self, campaign_id: str) -> Campaign:
        """Return a campaign.

        Raises:
            NotFoundError: no such campaign.
        """
        async with self._db.execute("SELECT * FROM campaign WHERE id = ?", (campaign_id,)) as rows:
            row = await rows.fetchone()
        if row is None:
            raise NotFoundError("no such campaign", where=campaign_id, hint="GET /v1/campaigns lists them")
        return _campaign(row)

    async def campaigns(self, limit: int = -1, before_utc_ns: int = 2**63 - 1) -> list[Campaign]:
        """Return campaigns created before `before_utc_ns`, newest first; a negative limit means all."""
        async with self._db.execute(
            "SELECT * FROM campaign WHERE created_utc_ns < ? ORDER BY created_utc_ns DESC LIMIT ?",
            (before_utc_ns, limit),
        ) as rows:
            return [_campaign(row) async for row in rows]

    async def running(self) -> list[Campaign]:
        """Return the campaigns that are to be run, oldest first."""
        async with self._db.execute("SELECT * FROM campaign WHERE state = 'running' ORDER BY created_utc_ns") as rows:
            return [_campaign(row) async for row in rows]

    async def attempts(self, campaign_id: str) -> dict[str, list[Attempt]]:
        """Return run -> its attempts in order."""
        found: dict[str, list[Attempt]] = {}
        async with self._db.execute(
            "SELECT * FROM attempt WHERE campaign = ? ORDER BY run, number", (campaign_id,)
        ) as rows:
            async for row in rows:
                values = {key: row[key] for key in row.keys() if key != "campaign"}  # noqa: SIM118
                found.setdefault(row["run"], []).append(Attempt.model_validate(values))
        return found

    async def last_result(self, campaign_id: str, run: str, step: str, attempt: int = 0) -> dict[str, Any] | None:
        """Return the newest result of a step, or None."""
        async with self._db.execute(
            "SELECT payload FROM entry WHERE campaign = ? AND run = ? AND step = ? AND kind = 'result' AND attempt = ?"
            " ORDER BY seq DESC LIMIT 1",
            (campaign_id, run, step, attempt),
        ) as rows:
            row = await rows.fetchone()
        if row is None:
            return None
        payload: dict[str, Any] = json.loads(row["payload"])
        return payload

    async def results(self, campaign_id: str, *steps: str) -> dict[str, list[tuple[str, dict[str, Any]]]]:
        """Return step -> the run and the payload of each of its results, oldest first."""
        found: dict[str, list[tuple[str, dict[str, Any]]]] = {step: [] for step in steps}
        marks = ", ".join("?" * len(steps))
        async with self._db.execute(
            f"SELECT step, run, payload FROM entry WHERE campaign = ? AND kind = 'result' AND step IN ({marks})"
            " ORDER BY seq",
            (campaign_id, *steps),
        ) as rows:
            async for row in rows:
                found[row["step"]].append((row["run"], json.loads(row["payload"])))
        return found

    async def runs_done(self) -> dict[str, int]:
        """Return campaign id -> number of its runs that are done."""
        async with self._db.execute(
            "SELECT campaign, COUNT(DISTINCT run) AS n FROM attempt WHERE outcome = 'done' GROUP BY campaign"
        ) as rows:
            return {row["campaign"]: row["n"] async for row in rows}

    async def count(self, campaign_id: str, run: str, step: str, kind: EntryKind) -> int:
        """Return how many entries of a kind a step has."""
        async with self._db.execute(
            "SELECT COUNT(*) FROM entry WHERE campaign = ? AND run = ? AND step = ? AND kind = ?",
            (campaign_id, run, step, kind),
        ) as rows:
            row = await rows.fetchone()
        return int(row[0]) if row else 0

    async def since_running(self, campaign_id: str, run: str, step: str, kind: EntryKind) -> list[dict[str, Any]]:
        """Return the payloads of a step's entries of a kind since the campaign was last set running, oldest first.

        What broke before somebody resumed the campaign does not count any more. Attempts have the step "".
        """
        async with self._db.execute(
            "SELECT payload FROM entry WHERE campaign = ? AND run = ? AND step = ? AND kind = ? AND seq > ("
            "  SELECT COALESCE(MAX(seq), 0) FROM entry WHERE campaign = ? AND run = '' AND step = '' AND kind = 'state'"
            "  AND json_extract(payload, '$.state') = 'running') ORDER BY seq",
            (campaign_id, run, step, kind, campaign_id),
        ) as rows:
            return [json.loads(row["payload"]) async for row in rows]

    async def last_job(self, campaign_id: str, run: str, attempt: int) -> tuple[str, str] | None:
        """Return (job id, agent) of the last job that was intended in an attempt, None without any."""
        async with self._db.execute(
            "SELECT payload FROM entry WHERE campaign = ? AND run = ? AND kind = 'intent' AND attempt = ?"
            " AND json_extract(payload, '$.job') IS NOT NULL ORDER BY seq DESC LIMIT 1",
            (campaign_id, run, attempt),
        ) as rows:
            row = await rows.fetchone()
        if row is None:
            return None
        payload = json.loads(row["payload"])
        return payload["job"], payload["agent"]

    async def entries(self, since: int = 0, limit: int = 200, campaign_id: str | None = None) -> list[Entry]:
        """Return entries with a sequence number above `since`, oldest first."""
        of_one = "" if campaign_id is None else " AND campaign = ?"
        values = (since, limit) if campaign_id is None else (since, campaign_id, limit)
        async with self._db.execute(f"SELECT * FROM entry WHERE seq > ?{of_one} ORDER BY seq LIMIT ?", values) as rows:
            return [_entry(row) async for row in rows]

    async def last_seq(self, campaign_id: str | None = None) -> int:
        """Return the sequence number of the newest entry, of one campaign or of all; 0 without any."""
        of_one = "" if campaign_id is None else " WHERE campaign = ?"
        values = () if campaign_id is None else (campaign_id,)
        async with self._db.execute(f"SELECT MAX(seq) FROM entry{of_one}", values) as rows:
            row = await rows.fetchone()
        return int(row[0] or 0) if row else 0

    async def has_entries(self, campaign_id: str) -> bool:
        """Tell whether a campaign has any entry."""
        async with self._db.execute("SELECT 1 FROM entry WHERE campaign = ? LIMIT 1", (campaign_id,)) as rows:
            return await rows.fetchone() is not None


@lru_cache(maxsize=1024)
def _spec(text: str) -> CampaignSpec:
    """Parse once what lists of campaigns ask for again and again; a spec is frozen."""
    return CampaignSpec.model_validate_json(text)


def _campaign(row: aiosqlite.Row) -> Campaign:
    return Campaign(
        spec=_spec(row["spec"]), spec_hash=row["spec_hash"], state=row["state"],
        request=row["request"], reason=row["reason"], created_utc_ns=row["created_utc_ns"],
    )  # fmt: skip


def _entry(row: aiosqlite.Row) -> Entry:
    return Entry(
        seq=row["seq"], utc_ns=row["utc_ns"], campaign=row["campaign"], run=row["run"], attempt=row["attempt"],
        step=row["step"], kind=row["kind"], payload=json.loads(row["payload"]),
    )  # fmt: skip
