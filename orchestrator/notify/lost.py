"""Notices that nobody got: a health problem of whoever should have sent them, until one gets through again."""

import asyncio
from typing import Final

from orchestrator.notify.notices import Notice
from shared.service.health import HealthRegistry

REMEMBERED_S: Final = 86_400.0
"""A campaign may have nothing to tell for days: what was lost a day ago is in the log only."""


class LostNotices:
    """Counts what one sender gave up."""

    def __init__(self, name: str, health: HealthRegistry, remembered_s: float = REMEMBERED_S) -> None:
        self._name = name
        self._key = f"{name}: lost notices"
        self._health = health
        self._remembered_s = remembered_s
        self._count = 0
        self._forgets: asyncio.TimerHandle | None = None

    def lost(self, notice: Notice, why: str) -> None:
        """Remember that a notice was given up; `why` holds no secret."""
        self._count += 1
        how_many = "a notice was" if self._count == 1 else f"{self._count} notices were"
        self._health.set(
            self._key,
            f"{self._name}: {how_many} given up ({why}), the last at {notice.timestamp_utc}: {notice.text[:200]};"
            " over as soon as one gets through",
        )
        if self._forgets is not None:
            self._forgets.cancel()
        self._forgets = asyncio.get_running_loop().call_later(self._remembered_s, self.delivered)

    def delivered(self) -> None:
        """Take the problem back: a notice got through."""
        self._count = 0
        self._health.clear(self._key)
        if self._forgets is not None:
            self._forgets.cancel()
            self._forgets = None
