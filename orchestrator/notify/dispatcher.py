"""Puts the notifications together: every journal entry becomes a notice or not, every notice is offered to all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from orchestrator.campaign.service import CampaignService
from orchestrator.campaign.spec_library import SpecLibrary
from orchestrator.notify.notices import Notice, notice_of
from orchestrator.notify.webhook import WebhookSender
from orchestrator.settings import NotifySettings
from orchestrator.store.records import Entry
from shared.kernel.errors import ConfigurationError
from shared.service.auth import load_token


class Sender(Protocol):
    """Somebody who is told."""

    def offer(self, notice: Notice) -> None:
        """Queue a notice."""

    async def run(self) -> None:
        """Deliver until cancelled."""


@asynccontextmanager
async def notifying(settings: NotifySettings, service: CampaignService, library: SpecLibrary) -> AsyncIterator[None]:
    """Send notices while the orchestrator runs.

    Raises:
        ConfigurationError: a secret or token cannot be read.
    """
    senders: list[Sender] = [WebhookSender(webhook) for webhook in settings.webhooks]
    if settings.telegram is not None:
        # Imported late: only a lab with a bot needs the package.
        from orchestrator.notify.telegram import TelegramBot

        token = load_token(settings.telegram.token_file)
        if token is None:
            raise ConfigurationError("the bot needs a token", where="notify.telegram.token_file")
        senders.append(TelegramBot(settings.telegram, token, service, library))

    def notify(entry: Entry) -> None:
        notice = notice_of(entry)
        if notice is not None:
            for sender in senders:
                sender.offer(notice)

    service.journal.listen(notify)
    tasks = [asyncio.create_task(sender.run()) for sender in senders]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
