"""The job server: idempotence, typed kinds, refusal, interruption, events."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared.kernel.errors import ConfigurationError, ConflictError, DataError, NotFoundError
from shared.kernel.records import Record
from shared.kernel.settings import JobHistory
from shared.wire.job_server import JobContext, JobKind, JobServer
from shared.wire.job_table import JOB
from shared.wire.protocol import JobRequest, JobState
from tests.support.by_hand import by_hand


class Params(Record):
    value: int
    fail: bool = False
    wait_s: float = 0.0


class Result(Record):
    doubled: int


calls: list[int] = []


async def double(params: Params, context: JobContext) -> Result:
    calls.append(params.value)
    context.progress(0.5, "half")
    await asyncio.sleep(params.wait_s)
    if params.fail:
        raise DataError("this cannot be doubled", where="value")
    return Result(doubled=2 * params.value)


@asynccontextmanager
async def server(path: Path) -> AsyncIterator[JobServer]:
    calls.clear()
    async with JobServer(path / "jobs.sqlite", [JobKind("double", Params, double)]).running() as running:
        yield running


async def ended(running: JobServer, job_id: str) -> JobState:
    async with asyncio.timeout(5):
        while not (state := await running.get(job_id)).is_terminal:
            await asyncio.sleep(0.01)
    return state


def request(value: int = 2, **more: object) -> JobRequest:
    return JobRequest(kind="double", params={"value": value, **more})


async def test_asking_twice_is_asking_once(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        _, new = await running.submit("c/one", request())
        _, again = await running.submit("c/one", request())
        assert (new, again) == (True, False)
        assert (await ended(running, "c/one")).result == {"doubled": 4}
        assert calls == [2]


async def test_same_id_with_another_request_is_refused(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        await running.submit("c/one", request(2))
        with pytest.raises(ConflictError, match="another request"):
            await running.submit("c/one", request(3))


async def test_the_same_request_in_an_earlier_version_s_words_is_the_same(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        await running.submit("c/one", request(2, fail=False, wait_s=0.0))
        _, is_new = await running.submit("c/one", request(2))
        assert not is_new, "an earlier version wrote defaults out"


@pytest.mark.parametrize(
    ("asked", "error", "names"),
    [
        (JobRequest(protocol=(3, 0), kind="double", params={"value": 1}), ConflictError, "protocol 3.0"),
        (JobRequest(kind="run_a_command", params={}), ConfigurationError, "run_a_command"),
        (JobRequest(kind="double", params={"value": "x"}), ConfigurationError, "params.value"),
        (JobRequest(kind="double", params={"value": 1, "extra": 1}), ConfigurationError, "params.extra"),
    ],
)
async def test_what_does_not_fit_is_refused_by_name(
    tmp_path: Path, asked: JobRequest, error: type[Exception], names: str
) -> None:
    async with server(tmp_path) as running:
        with pytest.raises(error, match=names):
            await running.submit("c/one", asked)
        with pytest.raises(NotFoundError):
            await running.get("c/one")


async def test_a_failed_job_keeps_its_error(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        await running.submit("c/one", request(fail=True))
        state = await ended(running, "c/one")
        assert state.status == "failed"
        assert state.error is not None and state.error.code == "data" and state.error.where == "value"


async def test_a_running_job_is_interrupted_by_a_stop_and_remembered(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        await running.submit("c/done", request(1))
        await ended(running, "c/done")
        await running.submit("c/long", request(1, wait_s=60))
        await running.submit("c/queued", request(1))
        await asyncio.sleep(0.05)
    async with server(tmp_path) as running:
        assert (await running.get("c/done")).result == {"doubled": 2}
        assert (await running.get("c/long")).status == "interrupted"
        assert (await running.get("c/queued")).status == "interrupted"


async def test_cancel_ends_a_job_at_once(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        await running.submit("c/long", request(1, wait_s=60))
        await asyncio.sleep(0.05)
        assert (await running.cancel("c/long")).status == "cancelled"


async def test_events_tell_progress_and_end_in_order(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        await running.submit("c/one", request())
        await ended(running, "c/one")
        seen = []
        async with asyncio.timeout(5):
            async for event in running.events(0):
                seen.append((event.seq, event.job.status, event.job.progress))
                if event.job.is_terminal:
                    break
        assert [status for _, status, _ in seen] == ["queued", "running", "running", "finished"]
        assert [seq for seq, _, _ in seen] == [1, 2, 3, 4]
        assert [progress for _, _, progress in seen] == [0.0, 0.0, 0.5, 1.0]


async def test_a_list_shows_jobs_without_their_results(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        await running.submit("c/one", request(3))
        await ended(running, "c/one")
        await running.submit("c/long", request(1, wait_s=60))
        await asyncio.sleep(0.05)
        listed = {job.id: job.model_dump() for job in await running.list()}
        assert listed.keys() == {"c/one", "c/long"}
        assert all("result" not in job and "params" not in job for job in listed.values())
        assert (listed["c/one"]["status"], listed["c/long"]["status"]) == ("finished", "running")


def rows(path: Path, change: str = "SELECT id FROM job ORDER BY created_utc_ns") -> list[str]:
    with by_hand(path / "jobs.sqlite", (JOB,)) as db:
        return [row[0] for row in db.execute(change)]


@asynccontextmanager
async def forgetful(path: Path, **history: float) -> AsyncIterator[JobServer]:
    kinds = [JobKind("double", Params, double)]
    limits = JobHistory.model_validate(history)
    async with JobServer(path / "jobs.sqlite", kinds, history=limits).running() as running:
        yield running


async def test_old_jobs_are_forgotten_unless_they_are_not_over(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        for number in range(4):
            await running.submit(f"c/{number}", request(number))
            await ended(running, f"c/{number}")
    day_ns = 86_400 * 10**9
    rows(tmp_path, f"UPDATE job SET ended_utc_ns = ended_utc_ns - {100 * day_ns} WHERE id IN ('c/0', 'c/1')")
    rows(tmp_path, "UPDATE job SET status = 'running' WHERE id = 'c/1'")
    async with forgetful(tmp_path, days=90) as running:  # c/1 is interrupted here: now, not 100 days ago
        await running.submit("c/new", request(5))
        await ended(running, "c/new")
    assert rows(tmp_path) == ["c/1", "c/2", "c/3", "c/new"]
    async with forgetful(tmp_path, jobs=1) as running:  # those that ended just now may still be asked for
        await running.submit("c/newer", request(5))
        await ended(running, "c/newer")
    assert rows(tmp_path) == ["c/1", "c/2", "c/3", "c/new", "c/newer"]
    rows(tmp_path, f"UPDATE job SET ended_utc_ns = ended_utc_ns - {day_ns}")
    async with forgetful(tmp_path, jobs=2) as running:
        await running.submit("c/newest", request(5))
        await ended(running, "c/newest")
    assert rows(tmp_path) == ["c/new", "c/newer", "c/newest"], "two, and what came in the same breath"
