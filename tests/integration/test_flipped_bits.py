"""One bit flips in a database of a real campaign, in any page: it is found with file and cure, or it does no harm.

What never happens: an answer that differs from what was written, or an error that is not the lab's own.
"""

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from meter_bridge.instrument.description import InstrumentSettings
from meter_bridge.sample_pieces import PieceBuilder, PieceRequest
from meter_bridge.trace.reader import TraceReader
from meter_bridge.trace.store import TraceStore
from orchestrator.store.journal import open_journal
from shared.kernel.errors import DataError
from shared.kernel.records import Record
from shared.service.health import HealthRegistry
from shared.wire.job_server import JobContext, JobKind, JobServer
from shared.wire.meter_api import SamplePiece
from shared.wire.protocol import JobRequest
from tests.support.long_trace import INSTRUMENT, LONG_AGO_UTC_NS, NODES, NS, fill_trace
from tests.support.measured_before import unpack

FLIPS = 40


class _Params(Record):
    text: str = ""


async def _echo(params: _Params, context: JobContext) -> _Params:
    return params


async def _journal_of_a_campaign(folder: Path) -> Path:
    path = unpack(folder).journal
    async with open_journal(path):
        return path


async def _told_by_journal(path: Path) -> object:
    async with open_journal(path) as journal:
        campaigns = await journal.campaigns()
        entries = await journal.entries(0, 100_000)
        attempts = [await journal.attempts(one.id) for one in campaigns]
        found = {(entry.campaign, entry.run, entry.step) for entry in entries if entry.kind == "result"}
        results = [await journal.last_result(*one) for one in sorted(found)]
        return campaigns, entries, attempts, results, await journal.runs_done()


async def _jobs_of_an_agent(folder: Path) -> Path:
    path = folder / "jobs.sqlite"
    async with JobServer(path, [JobKind("echo", _Params, _echo)]).running() as server:
        for number in range(40):
            await server.submit(f"camp/job-{number}", JobRequest(kind="echo", params={"text": f"{number} " * 80}))
        while await server.list(unfinished=True):
            await asyncio.sleep(0.01)
    return path


async def _told_by_jobs(path: Path) -> object:
    async with JobServer(path, []).running() as server:
        return [await server.get(job.id) for job in await server.list(1000)]


STORES: dict[str, tuple[Callable[[Path], Awaitable[Path]], Callable[[Path], Awaitable[object]]]] = {
    "journal": (_journal_of_a_campaign, _told_by_journal),
    "jobs": (_jobs_of_an_agent, _told_by_jobs),
}


def _places(path: Path, count: int, seed: int) -> list[tuple[int, int]]:
    """Return (byte, bit) of flips: at least one in each page, as far as `count` goes, the first page more often."""
    chance = random.Random(seed)
    with closing(sqlite3.connect(path)) as db:
        size = int(db.execute("PRAGMA page_size").fetchone()[0])
    pages = path.stat().st_size // size
    chosen = [*chance.sample(range(pages), min(pages, count)), *[0] * 5]
    chosen += [chance.randrange(pages) for _ in range(count - len(chosen))]
    return [(page * size + chance.randrange(size), chance.randrange(8)) for page in chosen]


def _flip(path: Path, byte: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(byte)
        before = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([before ^ 1 << bit]))


async def _check(name: str, folder: Path, count: int, seed: int) -> None:
    make, ask = STORES[name]
    sound = await make(folder)
    expected = await ask(sound)
    found = 0
    for number, (byte, bit) in enumerate(_places(sound, count, seed)):
        path = folder / str(number) / sound.name
        path.parent.mkdir()
        shutil.copy(sound, path)
        _flip(path, byte, bit)
        try:
            assert await ask(path) == expected, f"bit {bit} of byte {byte}: believed"
        except DataError as error:
            found += 1
            assert (error.where, bool(error.hint)) == (str(path), True), error
        shutil.rmtree(path.parent)
    print(f"{name}: {found} of {count} flips found, the others changed nothing that is read")
    assert found > count // 3


@pytest.mark.parametrize("name", STORES)
async def test_a_flipped_bit_is_found_or_does_no_harm(name: str, tmp_path: Path) -> None:
    await _check(name, tmp_path, FLIPS, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", STORES)
async def test_many_flipped_bits(name: str, tmp_path: Path) -> None:
    await _check(name, tmp_path, 1500, seed=2)


async def _window(path: Path) -> list[SamplePiece]:
    """Open the store as a bridge does and read the whole window in pieces."""
    await (await TraceStore.open(path, HealthRegistry())).close()
    reader = await TraceReader.open(path)
    pieces: list[SamplePiece] = []
    try:
        builder = PieceBuilder(path, reader, NODES, InstrumentSettings())
        cursor: str | None = None
        while not pieces or cursor is not None:
            asked = PieceRequest(LONG_AGO_UTC_NS, LONG_AGO_UTC_NS + 600 * NS, None, cursor)
            pieces.append(await builder.piece(asked, fallback=INSTRUMENT))
            cursor = pieces[-1].next
    finally:
        await reader.close()
    return pieces


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("count", "seed"), [(30, 1), pytest.param(1500, 2, marks=pytest.mark.slow)])
async def test_a_flipped_bit_of_the_trace_takes_its_sample_away_or_is_named(
    tmp_path: Path, count: int, seed: int
) -> None:
    """A run of hours is not lost for one bit: the sample is left out, and the run's events say so."""
    sound = tmp_path / "trace.sqlite"
    await asyncio.to_thread(fill_trace, sound, 1 / 6)
    (whole,) = await _window(sound)
    assert whole.window is not None
    expected = dict(zip(whole.utc_ns, zip(*whole.power_w.values(), strict=True), strict=True))
    named = left_out = 0
    for number, (byte, bit) in enumerate(_places(sound, count, seed)):
        path = tmp_path / str(number) / sound.name
        path.parent.mkdir()
        shutil.copy(sound, path)
        _flip(path, byte, bit)
        try:
            (got,) = await _window(path)
        except DataError as error:
            named += 1
            assert (error.where, bool(error.hint)) == (str(path), True), error
        else:
            assert got.window is not None
            samples = dict(zip(got.utc_ns, zip(*got.power_w.values(), strict=True), strict=True))
            assert samples.items() <= expected.items(), f"bit {bit} of byte {byte}: believed"
            if missing := len(expected) - len(samples):
                left_out += 1
                assert missing == 1, f"bit {bit} of byte {byte}"
                assert [event.kind for event in got.window.events] == ["gap", "damaged"]
        shutil.rmtree(path.parent)
    print(f"trace: of {count} flips {left_out} took their sample away, {named} were named, the others did nothing")
    assert left_out and named
