"""The live broadcaster: power from the bridge, journal entries and progress, fanned out to whoever watches.

A watcher that is too slow loses the oldest messages and never stalls the others (`shared.service.broadcaster`).
"""

import asyncio
import logging
from collections import deque
from typing import Literal

import websockets
from pydantic import Field
from pydantic_core import from_json

from orchestrator.campaign.lab import Lab
from orchestrator.store.records import Entry
from shared.kernel.defects import reason_of
from shared.kernel.errors import DataError
from shared.kernel.records import CampaignId, Record
from shared.service.broadcaster import Broadcaster
from shared.service.endpoint import Endpoint
from shared.wire.meter_api import LivePower

log = logging.getLogger(__name__)

_QUEUE = 512
_POWER_KEPT = 6000
"""600 s at 10 Hz."""
_RECONNECT_S = (0.2, 0.5, 1.0, 2.0, 5.0)


class CampaignProgress(Record):
    """What is being done now."""

    campaign: CampaignId
    run: str
    step: str
    fraction: float
    message: str
    window_open: bool
    eta_s: float | None = None
    tokens: int | None = Field(default=None, description="tokens so far in this prefill or decode window")
    tokens_total: int | None = Field(default=None, description="tokens of the whole window")
    utc_ns: int = Field(default=0, description="when this was told, for rates between two messages")


class LiveMessage(Record):
    """One message of `WS /v1/live`; exactly the field named by `type` is set."""

    type: Literal["power", "entry", "progress"]
    power: LivePower | None = None
    entry: Entry | None = None
    progress: CampaignProgress | None = None


class LiveBroadcaster(Broadcaster[LiveMessage]):
    """Fans live messages out and remembers the recent power and the present progress."""

    def __init__(self) -> None:
        super().__init__(_QUEUE)
        self._power: deque[LivePower] = deque(maxlen=_POWER_KEPT)
        self.progress: CampaignProgress | None = None

    def publish(self, message: LiveMessage) -> None:
        """Send a message to every watcher."""
        if message.progress is not None:
            self.progress = message.progress
        if message.power is not None:
            self._power.append(message.power)
        super().publish(message)

    @property
    def last_power(self) -> LivePower | None:
        """The newest power message."""
        return self._power[-1] if self._power else None

    def recent_power(self, seconds: float) -> list[LivePower]:
        """Return the power messages of the last `seconds`, oldest first."""
        if not self._power:
            return []
        since_ns = self._power[-1].utc_ns - int(seconds * 1e9)
        return [power for power in self._power if power.utc_ns >= since_ns]


async def relay_power(broadcaster: LiveBroadcaster, lab: Lab) -> None:
    """Follow the bridge's live feed for ever, reconnecting with capped back-off."""
    meter = Endpoint.of(lab.settings.meter)
    failures = 0
    while True:
        try:
            async with meter.websocket("/v1/live") as socket:
                log.info("the meter's live feed is %s", "connected again" if failures else "connected")
                failures = 0
                async for message in socket:
                    broadcaster.publish(
                        LiveMessage(type="power", power=await lab.meter.read(LivePower, from_json(message)))
                    )
        except (OSError, websockets.WebSocketException, ValueError, DataError) as error:
            if not failures:  # once, however long it lasts
                log.warning("the meter's live feed broke: %s", reason_of(error))
        await asyncio.sleep(_RECONNECT_S[min(failures, len(_RECONNECT_S) - 1)])
        failures += 1
