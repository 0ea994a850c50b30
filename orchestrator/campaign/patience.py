"""Waiting for a disk that takes nothing: the campaign stands still, asks no node for anything, and says why.

The journal and the results are waited for, since what they would hold cannot be measured again for free. Inside an
attempt's windows nothing is waited for: a window with a pause in it would not be one (`Caller.once`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from shared.files.disk import folder_of, refusal, storage_error
from shared.kernel.errors import EpiError, StorageError
from shared.service.health import HealthRegistry

FIRST_PAUSE_S: float = 1.0
LONGEST_PAUSE_S: float = 30.0
_RESULTS: Final = "results"

T = TypeVar("T")


class Patience:
    """The pauses of one campaign; they double, up to half a minute."""

    def __init__(self, results_dir: Path, health: HealthRegistry, publish: Callable[[str], None]) -> None:
        self._results_dir = results_dir
        self._health = health
        self._publish = publish

    async def pause(self, refused: EpiError, tries: int) -> None:
        """Wait before the next try, the `tries`-th, at what was refused."""
        self._publish(f"waiting: {refused}")
        await asyncio.sleep(min(FIRST_PAUSE_S * 2 ** min(tries - 1, 16), LONGEST_PAUSE_S))

    async def results(self, write: Callable[[], T], is_stop_requested: Callable[[], Awaitable[bool]]) -> T:
        """Write result files, in a thread, and return what `write` returns; a full disk is waited for.

        Raises:
            StorageError: the disk was full, and then somebody asked the campaign to stop.
            EpiError: whatever else `write` raises.
        """
        return await self.written(lambda: asyncio.to_thread(write), is_stop_requested)

    async def written(self, write: Callable[[], Awaitable[T]], is_stop_requested: Callable[[], Awaitable[bool]]) -> T:
        """Await what writes result files, from its beginning each time that the disk is full; raises as `results`."""
        refused: StorageError | None = None
        tries = 0
        while True:
            try:
                # After a refusal first a little: doing everything anew for a disk that is as full would be waste.
                if refused is not None and await asyncio.to_thread(_is_refused, refused):
                    raise refused
                done = await self._stored(write)
            except StorageError as again:
                refused = again
                self._health.set(_RESULTS, str(refused), failing=True)
                if await is_stop_requested():
                    self._health.clear(_RESULTS)
                    raise
                tries += 1
                await self.pause(refused, tries)
            else:
                self._health.clear(_RESULTS)
                return done

    async def _stored(self, write: Callable[[], Awaitable[T]]) -> T:
        try:
            return await write()
        except OSError as error:
            if (unwritten := storage_error(error, self._results_dir / "results", "the results")) is None:
                raise
            raise unwritten from error


def _is_refused(refused: StorageError) -> bool:
    return refusal(folder_of(Path(refused.where))) is not None
