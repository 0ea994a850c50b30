"""Whoever asked for a write may be cancelled at any moment: the write is whole or was never begun, and is told once."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.store.journal import Journal, open_journal
from shared.kernel.errors import ConflictError, InfrastructureError
from shared.kernel.records import Record
from shared.wire.job_server import JobContext, JobKind, JobServer
from shared.wire.protocol import JobRequest
from tests.unit.test_store_journal import spec

SEED = 14
RUN = RunReference.parse("baseline/rep-1")

Write = Callable[[Journal, random.Random], Awaitable[object]]


async def _attempt(journal: Journal, chance: random.Random) -> None:
    number = await journal.begin_attempt("camp", RUN)
    await journal.append("camp", kind="intent", run=RUN, attempt=number, step="decode")
    await journal.end_attempt("camp", RUN, number, chance.choice(["done", "failed", "interrupted"]))


async def _same_spec(journal: Journal, chance: random.Random) -> None:
    await journal.create(spec())


async def _refused(journal: Journal, chance: random.Random) -> None:
    with suppress(ConflictError):
        await journal.create(spec(repetitions=7))


WRITES: tuple[Write, ...] = (
    _attempt, _same_spec, _refused,
    lambda journal, _: journal.append("camp", kind="result", step="plan", payload={"n": 1}),
    lambda journal, _: journal.set_request("camp", "pause"),
)  # fmt: skip


async def check_whole(journal: Journal, told: list[int]) -> None:
    """Writable, nothing open, no number missing, every committed entry told once and in order."""
    await asyncio.wait_for(journal.append("camp", kind="state", payload={"request": "none"}), 5)
    assert not await journal._db.read(lambda db: db.in_transaction)
    kept = [entry.seq for entry in await journal.entries(limit=1_000_000)]
    assert kept == list(range(1, len(kept) + 1))
    assert told == kept
    attempts = (await journal.attempts("camp")).get(RUN, [])
    entries = [entry for entry in await journal.entries(limit=1_000_000) if entry.kind == "attempt"]
    assert len(entries) == len(attempts) + sum(attempt.outcome is not None for attempt in attempts)


@pytest.mark.parametrize("turns", range(12))
async def test_cancelled_after_every_number_of_turns_of_the_loop(tmp_path: Path, turns: int) -> None:
    chance = random.Random(SEED)
    async with open_journal(tmp_path / "j.sqlite") as journal:
        told: list[int] = []
        journal.listen(lambda entry: told.append(entry.seq))
        await journal.create(spec())
        for write in WRITES:
            for _ in range(5):
                task = asyncio.ensure_future(write(journal, chance))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await check_whole(journal, told)


async def test_cancelled_thousands_of_times_at_random_moments(tmp_path: Path) -> None:
    cancelled = 0
    async with open_journal(tmp_path / "j.sqlite") as journal:
        # This test is of order, not of power cuts.
        await journal._db.maintain(lambda db: db.execute("PRAGMA synchronous = OFF").fetchall())
        told: list[int] = []
        journal.listen(lambda entry: told.append(entry.seq))
        await journal.create(spec())

        async def client(number: int) -> None:
            nonlocal cancelled
            mine = random.Random(SEED + number)
            for _ in range(500):
                task = asyncio.ensure_future(mine.choice(WRITES)(journal, mine))
                if mine.random() < 0.3:
                    for _ in range(mine.randrange(6)):
                        await asyncio.sleep(0)
                else:
                    await asyncio.sleep(mine.expovariate(1500))
                for _ in range(mine.randrange(1, 4)):  # whoever is stopped may be told so more than once
                    task.cancel()
                    await asyncio.sleep(0)
                (outcome,) = await asyncio.gather(task, return_exceptions=True)
                cancelled += isinstance(outcome, asyncio.CancelledError)

        await asyncio.gather(*(client(number) for number in range(8)))
        await check_whole(journal, told)
    assert cancelled > 2000


async def test_a_listener_that_fails_takes_nothing_from_the_others(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "j.sqlite") as journal:
        told: list[int] = []

        def fail(entry: object) -> None:
            raise ValueError("a broken listener")

        journal.listen(fail)
        journal.listen(lambda entry: told.append(entry.seq))
        await journal.create(spec())
        await check_whole(journal, told)


async def test_what_breaks_beside_a_write_does_not_tear_it(tmp_path: Path) -> None:
    """As in an attempt's start: a silent meter ends the task group while the pin of the model is being journaled."""
    async with open_journal(tmp_path / "j.sqlite") as journal:
        told: list[int] = []
        journal.listen(lambda entry: told.append(entry.seq))
        await journal.create(spec())
        await journal.set_state("camp", "running")

        async def meter(turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            raise InfrastructureError("the meter is silent")

        for turns in range(30):
            number = await journal.begin_attempt("camp", RUN)
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(journal.append("camp", kind="intent", run=RUN, attempt=number, step="deploy"))
                    group.create_task(journal.append("camp", kind="intent", run=RUN, attempt=number, step="deploy"))
                    group.create_task(meter(turns))
            await journal.end_attempt("camp", RUN, number, "failed", reason="the meter is silent")
        await journal.set_request("camp", "pause")
        await journal.set_state("camp", "paused")
        await check_whole(journal, told)


class _Params(Record):
    wait_s: float = 0.0


async def _wait(params: _Params, context: JobContext) -> _Params:
    await asyncio.sleep(params.wait_s)
    return params


@pytest.mark.parametrize("turns", range(10))
async def test_a_job_whose_asker_goes_away_is_done_or_was_never_taken(tmp_path: Path, turns: int) -> None:
    async with JobServer(tmp_path / "jobs.sqlite", [JobKind("wait", _Params, _wait)]).running() as server:
        for number in range(10):
            asking = asyncio.ensure_future(server.submit(f"c/{number}", JobRequest(kind="wait")))
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(5):
            while await server.list(unfinished=True):
                await asyncio.sleep(0.01)
        assert {state.status for state in await server.list()} <= {"finished"}
        state, new = await server.submit("c/after", JobRequest(kind="wait"))
        assert new and not state.is_terminal


@pytest.mark.parametrize("turns", range(14))
async def test_a_job_that_is_cancelled_at_any_moment_ends_once_and_for_all(tmp_path: Path, turns: int) -> None:
    path = tmp_path / "jobs.sqlite"
    kept = {}
    async with JobServer(path, [JobKind("wait", _Params, _wait)]).running() as server:
        for number, wait_s in enumerate((0.0, 0.0, 60.0)):
            job = f"c/{number}"
            await server.submit(job, JobRequest(kind="wait", params={"wait_s": wait_s}))
            for _ in range(turns):
                await asyncio.sleep(0)
            kept[job] = await asyncio.wait_for(server.cancel(job), 5)
            assert kept[job].is_terminal
            assert await server.get(job) == kept[job]
    async with JobServer(path, []).running() as server:
        assert {job: await server.get(job) for job in kept} == kept
