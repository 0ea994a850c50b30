"""A journal of more than 10,000 runs: what status and lists cost in statements and rows, and tags for whoever polls.

Not here: milliseconds (`make bench`, suite `journal`); a test on a busy machine must not judge by them.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.app import build_app
from orchestrator.settings import OrchestratorSettings
from orchestrator.store.journal import open_journal
from orchestrator.store.tables import SUMMED
from shared.files.database import Database
from shared.kernel.settings import AgentAddress
from tests.support.by_hand import by_hand
from tests.support.journal_factory import fill_journal, old_spec

CAMPAIGNS = 134
PAUSED = old_spec(133).id
RUNS_EACH = 78  # the paper's 25 configurations and the biased control, three times


@pytest.fixture(scope="module")
def journal_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("journal") / "state" / "journal.sqlite"
    assert asyncio.run(fill_journal(path, CAMPAIGNS)) == CAMPAIGNS * RUNS_EACH >= 10_000
    return path


@pytest.fixture
async def client(journal_file: Path, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the orchestrator on a copy of the journal, its agents away, without a socket between."""
    (tmp_path / "state").mkdir()
    shutil.copy(journal_file, tmp_path / "state")
    with by_hand(tmp_path / "state" / journal_file.name, SUMMED) as db:
        db.execute("UPDATE campaign SET state = 'paused' WHERE id = ?", (PAUSED,))
    away = "http://127.0.0.1:9"
    app = build_app(
        OrchestratorSettings(
            name="orchestrator", port=1, state_dir=tmp_path / "state", results_dir=tmp_path,
            nodes=(AgentAddress(name="node1", url=away),), surgeon=AgentAddress(name="surgeon", url=away),
            meter=AgentAddress(name="meter", url=away), workload_prompts=tmp_path / "prompts.txt",
        ),
        None,
    )  # fmt: skip
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as one,
    ):
        yield one


@contextmanager
def counted_statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Note every statement that is sent to a database, as SQLite runs it."""
    sent: list[str] = []
    read = Database.read

    async def noting(self: Database, ask: Callable[[sqlite3.Connection], Any]) -> Any:
        def traced(db: sqlite3.Connection) -> Any:
            db.set_trace_callback(sent.append)
            try:
                return ask(db)
            finally:
                db.set_trace_callback(None)

        return await read(self, traced)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "read", noting)
        yield sent


@pytest.mark.parametrize(
    ("path", "statements", "rows"),
    [
        ("/v1/campaigns", 3, 100),
        (f"/v1/campaigns/{old_spec(70).id}", 5, RUNS_EACH),
        (f"/v1/entries?campaign={old_spec(133).id}", 1, 200),
        ("/v1/entries?since=50000", 1, 200),
    ],
)
async def test_statements_do_not_grow_with_the_journal(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str, statements: int, rows: int
) -> None:
    with counted_statements(monkeypatch) as sent:
        response = await client.get(path)
    assert response.status_code == 200
    found = response.json()
    assert len(found if isinstance(found, list) else found["runs"]) == rows
    assert len(sent) <= statements, sent


async def test_no_status_or_list_reads_a_whole_table(journal_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_journal(journal_file) as journal:
        with counted_statements(monkeypatch) as seen:
            one = old_spec(133).id
            await journal.campaign(one)
            await journal.campaigns(100)
            await journal.attempts(one)
            await journal.results(one, "evaluate")
            await journal.entries(0, 200, one)
            await journal.entries(100_000, 200)
            await journal.last_seq()
            await journal.last_seq(one)
            await journal.runs_done()
    with sqlite3.connect(journal_file) as db:
        for sql in seen:
            plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]
            assert all("SCAN" not in line or "INDEX" in line or "MAX" in sql for line in plan), (sql, plan)
    db.close()
    assert len(seen) == 9


async def test_whoever_polls_is_not_sent_the_same_twice(client: httpx.AsyncClient) -> None:
    one = old_spec(3).id
    for path in (f"/v1/campaigns/{one}", "/v1/campaigns", "/v1/campaigns?limit=5"):
        first = await client.get(path)
        tag = first.headers["ETag"]
        for sent in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = await client.get(path, headers={"If-None-Match": sent})
            assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
        other = await client.get(path, headers={"If-None-Match": '"other"'})
        assert (other.status_code, other.json()) == (200, first.json())


async def test_a_change_changes_the_tag_of_its_own_campaign_only(client: httpx.AsyncClient) -> None:
    mine, other = (f"/v1/campaigns/{campaign}" for campaign in (PAUSED, old_spec(5).id))
    tags = {path: (await client.get(path)).headers["ETag"] for path in (mine, other, "/v1/campaigns")}
    assert (await client.post(f"{mine}/cancel")).json()["state"] == "cancelled"
    answers = {path: await client.get(path, headers={"If-None-Match": tag}) for path, tag in tags.items()}
    assert answers[mine].json()["state"] == "cancelled"
    assert answers["/v1/campaigns"].status_code == 200
    assert answers[other].status_code == 304
    assert (await client.get("/v1/campaigns/unknown", headers={"If-None-Match": "*"})).status_code == 404
