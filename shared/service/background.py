"""Tasks that live as long as their daemon: a death is logged and a health problem, and the work begins anew.

Not here: processes (`node_agent.processes`, `orchestrator.local.supervisor`), and work that has an end, a job.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self

from shared.service.health import HealthRegistry

log = logging.getLogger(__name__)

BACKOFF_S: Final = (1.0, 2.0, 5.0, 15.0, 60.0)
STABLE_S: Final = 60.0
"""Work that has gone on for so long after a death has recovered from it."""


class BackgroundTasks:
    """The lasting tasks of a daemon; leaving the block cancels them and waits for their ends."""

    def __init__(
        self, health: HealthRegistry, *, backoff_s: tuple[float, ...] = BACKOFF_S, stable_s: float = STABLE_S
    ) -> None:
        self._health = health
        self._backoff_s = backoff_s
        self._stable_s = stable_s
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Cancel everything and wait until it has ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(
        self, name: str, work: Callable[[], Awaitable[None]], *, failing: bool = True, has_end: bool = False
    ) -> None:
        """Do `work` now, and again after a pause whenever it dies or ends.

        `name` is what people read, for example "the campaign runner"; `failing` says that the daemon cannot do what it
        is there for without it. Work that `has_end` by its nature is done once, also when it dies.
        """
        self._tasks.append(asyncio.create_task(self._keep(name, work, failing, has_end), name=name))

    async def _keep(self, name: str, work: Callable[[], Awaitable[None]], failing: bool, has_end: bool) -> None:
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            began = loop.time()
            recovered = loop.call_later(self._stable_s, self._health.clear, name)
            try:
                await work()
                if has_end:
                    return
                why = "it ended, which it never should"
            except asyncio.CancelledError:
                if _asked_to_end():
                    raise
                why = "something inside cancelled it"
            except Exception as error:
                log.exception("%s died", name)
                why = f"{type(error).__name__}: {error}"
            finally:
                recovered.cancel()
            if has_end:
                self._health.set(name, f"{name} died: {why}", failing=failing)
                return
            deaths = deaths + 1 if loop.time() - began < self._stable_s else 1
            pause_s = self._backoff_s[min(deaths, len(self._backoff_s)) - 1]
            self._health.set(name, f"{name} died and starts again in {pause_s:g} s: {why}", failing=failing)
            await asyncio.sleep(pause_s)


def _asked_to_end() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def log_death(task: "asyncio.Task[Any]") -> None:
    """Log how a task that nobody waits for died: a done callback for work that has an end."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s died", task.get_name(), exc_info=error)
