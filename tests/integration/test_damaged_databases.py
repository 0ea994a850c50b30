"""Databases that a power cut, a stray command or a flipped bit left damaged, empty or gone: one sentence names file and
cure, nothing is begun anew, and what is left is left as it is."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from meter_bridge.trace.store import TraceStore
from orchestrator.store.journal import open_journal
from shared.kernel.errors import DataError
from shared.kernel.records import Record
from shared.service.daemon import EXIT_DAMAGED
from shared.service.health import HealthRegistry
from shared.wire.job_server import JobContext, JobKind, JobServer
from shared.wire.protocol import JobRequest
from tests.unit.test_meter_store import owners, sample
from tests.unit.test_store_journal import spec

PAGE = 4096


class _Params(Record):
    n: int = 0


async def _do(params: _Params, context: JobContext) -> _Params:
    return params


async def _journal(path: Path) -> None:
    async with open_journal(path) as journal:
        await journal.create(spec())
        for number in range(300):
            await journal.append("camp", kind="result", step=f"step{number}", payload={"text": "x" * 100})


async def _trace(path: Path) -> None:
    store = await TraceStore.open(path, HealthRegistry())
    stream, anchor = owners(store)
    for number in range(3000):
        store.put(sample(number, stream, anchor))
    await store.close()


async def _jobs(path: Path) -> None:
    async with JobServer(path, [JobKind("do", _Params, _do)]).running() as server:
        for number in range(200):
            await server.submit(f"camp/{number}/{'x' * 100}", JobRequest(kind="do", params={"n": number}))


async def _open_journal(path: Path) -> None:
    async with open_journal(path):
        pass


async def _open_trace(path: Path) -> None:
    await (await TraceStore.open(path, HealthRegistry())).close()


async def _open_jobs(path: Path) -> None:
    async with JobServer(path, []).running():
        pass


Use = Callable[[Path], Awaitable[None]]
STORES: dict[str, tuple[Use, Use, str]] = {
    "journal.sqlite": (_journal, _open_journal, "epi-backup restore"),
    "trace.sqlite": (_trace, _open_trace, "epi-backup restore"),
    "jobs.sqlite": (_jobs, _open_jobs, "move the file"),
}


def _page_of(path: Path, kind: str) -> int:
    """Return the number (from 1) of the root page of a table, or of an index, of the file."""
    with closing(sqlite3.connect(path)) as db:
        sql = "SELECT rootpage FROM sqlite_schema WHERE type = ? AND rootpage > 1 ORDER BY rootpage DESC LIMIT 1"
        return int(db.execute(sql, (kind,)).fetchone()[0])


def _flip(path: Path, at: int) -> None:
    body = bytearray(path.read_bytes())
    body[at] ^= 0x55
    path.write_bytes(body)


def _zero(path: Path, page: int) -> None:
    body = bytearray(path.read_bytes())
    body[(page - 1) * PAGE : page * PAGE] = bytes(PAGE)
    path.write_bytes(body)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "text": lambda path: path.write_bytes(b"this is not a database" * 200),
    "first page zeroed": lambda path: _zero(path, 1),
    "cut to half": lambda path: os.truncate(path, path.stat().st_size // 2 // PAGE * PAGE),
    "bit of the header": lambda path: _flip(path, 3),
    "a table's page zeroed": lambda path: _zero(path, _page_of(path, "table")),
    "bit in a table's page": lambda path: _flip(path, (_page_of(path, "table") - 1) * PAGE),
    "bit in an index's page": lambda path: _flip(path, (_page_of(path, "index") - 1) * PAGE),
}


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_store_is_named_with_its_cure(tmp_path: Path, name: str, damage: str) -> None:
    fill, reopen, cure = STORES[name]
    path = tmp_path / name
    await fill(path)
    await reopen(path)
    with closing(sqlite3.connect(path)) as db:  # a log that is still there would heal the page
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    DAMAGES[damage](path)
    before = path.read_bytes() if path.exists() else None
    for _ in range(2):
        with pytest.raises(DataError) as refused:
            await reopen(path)
        assert refused.value.where == str(path)
        assert cure in refused.value.hint
    assert (path.read_bytes() if path.exists() else None) == before, "nothing was begun in its place"


async def test_a_first_start_that_was_cut_short_is_a_first_start(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.with_name(".journal.sqlite.new").write_bytes(b"")
    await _journal(path)
    await _open_journal(path)


@pytest.mark.parametrize("damage", ["empty", "first page zeroed", "a table's page zeroed"])
def test_the_bridge_says_it_in_one_line_and_ends(tmp_path: Path, damage: str) -> None:
    state = tmp_path / "state"
    asyncio.run(_trace(state / "trace.sqlite"))  # type: ignore[arg-type]
    DAMAGES[damage](state / "trace.sqlite")
    config = tmp_path / "bridge.toml"
    config.write_text(
        f'name = "m"\nport = 1\nstate_dir = "{state}"\nchannels = ["a", "b"]\n[source]\ndevice = "/dev/null"\n'
    )
    run = subprocess.run(
        [sys.executable, "-m", "meter_bridge", "--config", str(config)], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == EXIT_DAMAGED
    assert "Traceback" not in run.stderr
    assert str(state / "trace.sqlite") in run.stderr and "epi-backup restore" in run.stderr
