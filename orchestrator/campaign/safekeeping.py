"""When the journal is copied: before a campaign's first run, after its runs, at its end; never while a window is open.

A disk that does not take the copy is a problem of the orchestrator's health, and stops nobody. Damage that is found on
the way stops the campaign: what would be journaled from there on could not be believed. Not here: the copies (`store`).
"""

import asyncio
from collections.abc import Callable

from orchestrator.store.copies import JournalCopies
from shared.kernel.clock import utc_ns
from shared.kernel.errors import BugError, DataError, StorageError
from shared.service.health import HealthRegistry

_COPIES = "journal copies"
_JOURNAL = "journal damaged"


class JournalKeeper:
    """Has the journal copied."""

    def __init__(self, copies: JournalCopies, health: HealthRegistry, is_window_open: Callable[[], bool]) -> None:
        self._copies = copies
        self._health = health
        self._is_window_open = is_window_open

    async def keep(self, *, since_utc_ns: int = 0) -> None:
        """Make a copy if one is due, and in any case where none is newer than `since_utc_ns`.

        Raises:
            DataError: the journal is damaged.
        """
        if self._is_window_open():
            raise BugError("the journal is not copied while a window is open", where=str(self._copies.journal))
        try:
            if not self._copies.is_due(utc_ns(), since_utc_ns):
                return
            await asyncio.to_thread(self._copies.make, utc_ns())
        except StorageError as error:
            self._health.set(_COPIES, str(error))
        except OSError as error:
            self._health.set(_COPIES, f"{self._copies.folder}: the journal cannot be copied: {error.strerror}")
        except DataError as error:
            self._health.set(_JOURNAL, str(error), failing=True)
            raise
        else:
            self._health.clear(_COPIES)
