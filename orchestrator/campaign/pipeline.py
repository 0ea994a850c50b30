"""Coming variants are planned, cut and checked by the surgeon behind the measurement, a bounded number ahead.

Only the surgeon works ahead: bringing a variant to the nodes is a step of its run, outside every window. Where the
surgeon shares a machine with the nodes, as in the demo, `pipeline_ahead = 0` keeps it still while a window is open.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from orchestrator.campaign.preparation import Variant
from shared.kernel.records import Configuration


class VariantPipeline:
    """Gives variants in any order; those that come next in `order` are already under way."""

    def __init__(
        self, prepare: Callable[[Configuration], Awaitable[Variant]], order: Sequence[Configuration], ahead: int
    ) -> None:
        self._prepare = prepare
        self._order = list({configuration.id: configuration for configuration in order}.values())
        self._ahead = ahead
        self._tasks: dict[str, asyncio.Task[Variant]] = {}

    async def __aenter__(self) -> Self:
        """Begin; nothing is prepared before the first `get`."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel what is under way; the surgeon keeps what it finished."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def get(self, configuration: Configuration) -> Variant:
        """Return a variant, waiting if need be, and let the next ones be prepared meanwhile.

        Raises:
            EpiError: what the surgeon said about this very variant.
        """
        task = self._task(configuration)
        variant = await asyncio.shield(task)
        place = next((i for i, one in enumerate(self._order) if one.id == configuration.id), len(self._order))
        for coming in self._order[place + 1 : place + 1 + self._ahead]:
            self._task(coming)
        return variant

    def _task(self, configuration: Configuration) -> asyncio.Task[Variant]:
        task = self._tasks.get(configuration.id)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(self._run(configuration))
            self._tasks[configuration.id] = task
        return task

    async def _run(self, configuration: Configuration) -> Variant:
        return await self._prepare(configuration)
