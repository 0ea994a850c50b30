"""Settings of notifications: `[notify]` in the orchestrator's TOML file."""

from pathlib import Path

from pydantic import Field

from orchestrator.notify.notices import ALL_KINDS, NoticeKind
from shared.records import Record


class WebhookSettings(Record):
    """One receiver of signed webhooks (the Standard Webhooks scheme)."""

    url: str = Field(pattern=r"^https?://")
    secret_file: Path = Field(description="file with the shared secret: base64, optionally prefixed whsec_")
    kinds: tuple[NoticeKind, ...] = ALL_KINDS


class TelegramSettings(Record):
    """The bot; it answers only the chats named here."""

    token_file: Path
    chat_ids: tuple[int, ...] = Field(min_length=1)
    api_url: str = Field(default="https://api.telegram.org", pattern=r"^https?://[^\s]+[^/]$")
    kinds: tuple[NoticeKind, ...] = ("started", "paused", "finished", "failed", "cancelled", "attempt_failed")


class NotifySettings(Record):
    """Who is told what."""

    webhooks: tuple[WebhookSettings, ...] = ()
    telegram: TelegramSettings | None = None
