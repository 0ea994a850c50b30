"""A disk that is full to the last byte: what is refused says so, what has ended is known, and all heals with room."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.store.journal import open_journal
from shared.files import database
from shared.kernel.errors import StorageError
from shared.kernel.records import Record
from shared.service.health import HealthRegistry
from shared.wire.job_server import JobContext, JobKind, JobServer
from shared.wire.protocol import JobRequest
from tests.support.small_disk import small_disk
from tests.unit.test_store_journal import spec

pytestmark = pytest.mark.mounts


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(database, "LONGEST_RETRY_S", 0.2)


async def until(true: Callable[[], bool], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.02)


async def test_a_journal_that_cannot_be_written_says_so_is_read_and_heals_by_itself(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2) as disk:
        async with open_journal(disk.path / "journal.sqlite") as journal:
            health, told = HealthRegistry(), []
            journal.report_to(health)
            journal.listen(lambda entry: told.append(entry.seq))
            await journal.create(spec())
            disk.fill()
            written = 0
            with pytest.raises(StorageError, match="the journal cannot be written: the disk is full") as refused:
                while True:  # until what SQLite had allocated is used up
                    await journal.append("camp", kind="state", payload={"filler": "x" * 3000})
                    written += 1
            assert "make room on the file system of" in refused.value.hint
            for ask in (lambda: journal.set_request("camp", "pause"), lambda: journal.set_state("camp", "running")):
                with pytest.raises(StorageError, match="the disk is full"):
                    await ask()
            assert health.status == "failing"
            assert health.problems() == (str(refused.value),)
            campaign = await journal.campaign("camp")
            assert (campaign.state, campaign.request) == ("created", "none"), "half a write is none"

            disk.empty()
            await until(lambda: health.status == "ok")
            await journal.set_state("camp", "running")
            kept = [entry.seq for entry in await journal.entries(limit=10_000)]
            assert told == kept == list(range(1, written + 3))


class _Params(Record):
    go: bool = True


class _Done(Record):
    text: str


async def test_how_a_job_ended_is_known_at_once_and_written_when_there_is_room(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def work(params: _Params, context: JobContext) -> _Done:
        await go_on.wait()
        return _Done(text="x" * 100_000)

    kinds = [JobKind("work", _Params, work, concurrent=True)]
    with small_disk(tmp_path / "disk", 2) as disk:
        health = HealthRegistry()
        async with JobServer(disk.path / "jobs.sqlite", kinds, health).running() as server:
            for name in ("finishes", "cancelled"):
                await server.submit(f"c/{name}", JobRequest(kind="work"))
            await until(lambda: len(server._live) == 2)
            disk.fill()
            followed = []
            feed = server.events(0)
            assert (await asyncio.wait_for(server.cancel("c/cancelled"), 5)).status == "cancelled"
            go_on.set()
            async with asyncio.timeout(5):
                async for event in feed:
                    followed.append((event.job.id, event.job.status))
                    if followed[-1] == ("c/finishes", "finished"):
                        break
            assert ("c/cancelled", "cancelled") in followed
            done = await server.get("c/finishes")
            assert done.status == "finished" and done.result == {"text": "x" * 100_000}
            assert {state.status for state in await server.list()} == {"finished", "cancelled"}
            assert await server.list(unfinished=True) == []
            assert health.status == "failing" and "the job table cannot be written: the disk is full" in str(
                health.problems()
            )
            with pytest.raises(StorageError, match="the disk is full"):
                await server.submit("c/refused", JobRequest(kind="work"))

            disk.empty()
            await until(lambda: health.status == "ok")
            await until(lambda: not server._open._unwritten)
            _, new = await server.submit("c/refused", JobRequest(kind="work"))
            assert new, "what was refused had not been taken"
            await until(lambda: not server._live)
        async with JobServer(disk.path / "jobs.sqlite", kinds).running() as server:
            assert await server.get("c/finishes") == done
            assert (await server.get("c/cancelled")).status == "cancelled"


async def test_a_job_table_that_starts_on_a_full_disk_still_tells_the_truth(tmp_path: Path) -> None:
    async def work(params: _Params, context: JobContext) -> _Done:
        raise AssertionError("nobody is to be asked twice")

    with small_disk(tmp_path / "disk", 2) as disk:
        async with JobServer(disk.path / "jobs.sqlite", [JobKind("work", _Params, work)]).running() as server:
            await server.submit("c/left", JobRequest(kind="work", delay_s=3600))
            path = server._open._db.path
            copy = [(file, file.read_bytes()) for file in path.parent.iterdir() if file.name.startswith(path.name)]
        for file, content in copy:  # as kill -9 leaves it
            file.write_bytes(content)
        disk.fill(but_bytes=64 << 10)  # the write-ahead log's index has room, a commit has not always
        health = HealthRegistry()
        async with JobServer(disk.path / "jobs.sqlite", [], health).running() as server:
            assert (await server.get("c/left")).status == "interrupted"
            assert await server.list(unfinished=True) == []
