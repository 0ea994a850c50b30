"""Outgoing webhooks, signed by the Standard Webhooks scheme (standardwebhooks.com) and repeated until accepted.

Delivery never holds the campaign up: notices wait in a bounded queue, the oldest is dropped when it is full.
"""

import asyncio
import logging
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
from standardwebhooks.webhooks import Webhook

from orchestrator.notify.lost import LostNotices
from orchestrator.notify.notices import Notice
from orchestrator.settings import WebhookSettings
from shared.kernel.errors import ConfigurationError
from shared.service.endpoint import Endpoint
from shared.service.health import HealthRegistry
from shared.service.logs import hide

log = logging.getLogger(__name__)

_QUEUE = 1000
_RETRY_S = (1.0, 5.0, 30.0, 120.0)
_TIMEOUT_S = 10.0


class WebhookSender:
    """Sends notices to one receiver."""

    def __init__(
        self, settings: WebhookSettings, health: HealthRegistry, retry_s: tuple[float, ...] = _RETRY_S
    ) -> None:
        self._settings = settings
        self._retry_s = retry_s
        # Not the whole address: the path of many services' webhooks is their secret.
        self.name = f"the webhook to {urlsplit(settings.url).hostname}"
        self._lost = LostNotices(self.name, health)
        self._queue: asyncio.Queue[Notice] = asyncio.Queue(_QUEUE)
        try:
            secret = settings.secret_file.read_text().strip()
            hide(secret)
            self._signer = Webhook(secret)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigurationError(
                f"the webhook's secret cannot be used: {error}", where=str(settings.secret_file),
                hint="write a base64 secret into it, e.g. `openssl rand -base64 24`",
            ) from error  # fmt: skip

    def offer(self, notice: Notice) -> None:
        """Queue a notice if the receiver wants its kind."""
        if notice.kind not in self._settings.kinds:
            return
        if self._queue.full():
            dropped = self._queue.get_nowait()
            log.warning("%s: dropped %s, the receiver is too slow", self.name, dropped.text)
            self._lost.lost(dropped, "the receiver is too slow")
        self._queue.put_nowait(notice)

    async def run(self) -> None:
        """Deliver for ever, in order."""
        async with Endpoint("").client(timeout_s=_TIMEOUT_S) as client:
            while True:
                notice = await self._queue.get()
                if why := await self._deliver(client, notice):
                    log.warning("%s: gave up on %s", self.name, notice.text)
                    self._lost.lost(notice, why)
                else:
                    self._lost.delivered()

    async def _deliver(self, client: httpx.AsyncClient, notice: Notice) -> str:
        """Send a notice; return why it was given up, nothing when it was accepted."""
        why = ""
        body = notice.model_dump_json()
        message_id = f"epi-{notice.seq}"
        for delay_s in (0.0, *self._retry_s):
            await asyncio.sleep(delay_s)
            now = datetime.now(tz=UTC)
            headers = {
                "content-type": "application/json",
                "webhook-id": message_id,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": self._signer.sign(message_id, now, body),
            }
            try:
                # The status says it all: whatever the receiver sends beyond it is not read.
                request = client.stream("POST", self._settings.url, content=body, headers=headers)
                async with asyncio.timeout(_TIMEOUT_S), request as reply:
                    if reply.is_success:
                        return ""
                why = f"HTTP {reply.status_code}"
            except (httpx.TransportError, TimeoutError) as error:
                why = type(error).__name__
            log.info("%s: %s", self.name, why)
        return why
