"""No log is written while measurement windows are open: it is kept in memory and written when they are over."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shared.service.logs import hold_logs, write_held_logs

BETWEEN_WINDOWS_S: Final = 120.0
"""How long after a window the log is still kept back, unless something else begins: the next may be open."""


class QuietLog:
    """Keeps the log in memory while the jobs of measurement windows are there, and between one and the next."""

    def __init__(self) -> None:
        self._jobs = 0
        self._over: asyncio.TimerHandle | None = None

    @contextmanager
    def around(self, in_window: bool) -> Iterator[None]:
        """Be quiet around the job of a window; any other job that begins shows that the windows are over."""
        if not in_window:
            if not self._jobs:
                self.end()
            yield
            return
        self._jobs += 1
        self._cancel()
        hold_logs()
        try:
            yield
        finally:
            self._jobs -= 1
            if not self._jobs:
                self._over = asyncio.get_running_loop().call_later(BETWEEN_WINDOWS_S, self.end)

    def end(self) -> None:
        """Write what was kept."""
        self._cancel()
        write_held_logs()

    def _cancel(self) -> None:
        if self._over is not None:
            self._over.cancel()
            self._over = None
