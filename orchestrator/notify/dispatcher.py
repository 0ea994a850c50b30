"""Puts the notifications together: every journal entry becomes a notice or not, every notice is offered to all."""

from typing import Protocol

from orchestrator.campaign.service import CampaignService
from orchestrator.campaign.spec_library import SpecLibrary
from orchestrator.notify.notices import Notice, notice_of
from orchestrator.notify.webhook import WebhookSender
from orchestrator.settings import NotifySettings
from orchestrator.store.records import Entry
from shared.kernel.errors import ConfigurationError
from shared.service.auth import load_token
from shared.service.background import BackgroundTasks
from shared.service.health import HealthRegistry


class Sender(Protocol):
    """Somebody who is told; `name` is said in the log and in problems, so it holds no secret."""

    name: str

    def offer(self, notice: Notice) -> None:
        """Queue a notice."""

    async def run(self) -> None:
        """Deliver until cancelled."""


def start_notifying(
    settings: NotifySettings, service: CampaignService, library: SpecLibrary, background: BackgroundTasks,
    health: HealthRegistry,
) -> None:  # fmt: skip
    """Send notices in the background.

    Raises:
        ConfigurationError: a secret or token cannot be read.
    """
    senders: list[Sender] = [WebhookSender(webhook, health) for webhook in settings.webhooks]
    if settings.telegram is not None:
        # Imported late: only a lab with a bot needs the package.
        from orchestrator.notify.telegram import TelegramBot

        token = load_token(settings.telegram.token_file)
        if token is None:
            raise ConfigurationError("the bot needs a token", where="notify.telegram.token_file")
        senders.append(TelegramBot(settings.telegram, token, service, library, health))

    def notify(entry: Entry) -> None:
        notice = notice_of(entry)
        if notice is not None:
            for sender in senders:
                sender.offer(notice)

    service.journal.listen(notify)
    for sender in senders:
        background.start(sender.name, sender.run, failing=False)
