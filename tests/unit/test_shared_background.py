"""Lasting tasks: death seen, told and mended; recovery; ends that are right; a stop that waits."""

import asyncio
import itertools
import logging

import pytest

from shared.service.background import BackgroundTasks, log_death
from shared.service.health import HealthRegistry


async def until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_a_death_is_told_and_the_work_begins_anew_with_growing_pauses(caplog: pytest.LogCaptureFixture) -> None:
    health, starts = HealthRegistry(), []
    loop = asyncio.get_running_loop()

    async def work() -> None:
        starts.append(loop.time())
        if len(starts) <= 4:
            raise ValueError("one spec that nobody can read")
        await asyncio.sleep(3600)

    async with BackgroundTasks(health, backoff_s=(0.01, 0.1, 0.2), stable_s=0.15) as background:
        background.start("the runner", work)
        await until(health.problems)
        assert health.status == "failing"
        assert health.problems()[0].startswith("the runner died and starts again in 0.01 s: ValueError: one spec")
        await until(lambda: len(starts) == 5)
        pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
        assert pauses[0] >= 0.01 and pauses[1] >= 0.1 and pauses[2] >= 0.2 and pauses[3] >= 0.2
        assert health.status == "failing", "it has only just begun again"
        await until(lambda: health.status == "ok")
    assert caplog.text.count("the runner died\nTraceback") == 4
    await asyncio.sleep(0.05)
    assert len(starts) == 5, "left is left"


async def test_an_end_is_a_death_unless_the_work_has_one() -> None:
    health, runs = HealthRegistry(), []

    async def work() -> None:
        runs.append(1)

    async with BackgroundTasks(health, backoff_s=(0.01,)) as background:
        background.start("a replay", work, has_end=True)
        await asyncio.sleep(0.05)
        assert (len(runs), health.status) == (1, "ok")
        background.start("the feed", work, failing=False)
        await until(lambda: len(runs) > 3)
        assert health.status == "degraded" and "which it never should" in health.problems()[0]


async def test_work_that_has_an_end_is_not_begun_anew_when_it_dies() -> None:
    health, runs = HealthRegistry(), []

    async def work() -> None:
        runs.append(1)
        raise ValueError("the file is damaged")

    async with BackgroundTasks(health, backoff_s=(0.01,)) as background:
        background.start("a replay", work, has_end=True)
        await until(health.problems)
        await asyncio.sleep(0.05)
        assert (len(runs), health.problems()) == (1, ("a replay died: ValueError: the file is damaged",))


async def test_a_cancellation_from_inside_is_no_stop() -> None:
    health, runs = HealthRegistry(), []

    async def work() -> None:
        runs.append(1)
        raise asyncio.CancelledError

    async with BackgroundTasks(health, backoff_s=(0.01,)) as background:
        background.start("the feed", work)
        await until(lambda: len(runs) >= 3)
        assert "cancelled it" in health.problems()[0]


async def test_leaving_waits_until_the_work_has_ended() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.05)
            ended.append(1)

    async with BackgroundTasks(HealthRegistry()) as background:
        background.start("the writer", work)
        await asyncio.sleep(0.01)
    assert ended == [1]


async def test_the_death_of_work_that_nobody_waits_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def work(wrong: bool) -> None:
        if wrong:
            raise KeyError("x")

    tasks = [asyncio.create_task(work(wrong), name=f"estimate {wrong}") for wrong in (True, False)]
    for task in tasks:
        task.add_done_callback(log_death)
    with caplog.at_level(logging.ERROR):
        await asyncio.wait(tasks)
        await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == ["estimate True died"]
