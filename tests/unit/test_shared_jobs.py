"""The job server: idempotence, typed kinds, refusal, interruption, events."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared.kernel.errors import ConfigurationError, ConflictError, DataError, NotFoundError
from shared.kernel.records import Record
from shared.wire.job_server import JobContext, JobKind, JobServer
from shared.wire.protocol import JobRequest, JobState


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
