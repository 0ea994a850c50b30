"""Settings of the orchestrator: where the agents are, where results go, who is told."""

from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from shared.kernel.records import Record
from shared.kernel.settings import AgentAddress, DaemonSettings

NoticeKind = Literal["started", "run_done", "attempt_failed", "paused", "finished", "failed", "cancelled"]
ALL_KINDS: tuple[NoticeKind, ...] = get_args(NoticeKind)


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


class OrchestratorSettings(DaemonSettings):
    """One TOML file; the first of `nodes` is the root node that runs the engine."""

    nodes: tuple[AgentAddress, ...] = Field(min_length=1)
    surgeon: AgentAddress
    meter: AgentAddress
    results_dir: Path
    task_dirs: tuple[Path, ...] = ()
    workload_prompts: Path = Field(description="text file, one prompt a line")
    specs_dir: Path | None = Field(default=None, description="campaign specs that can be started by name")
    notify: NotifySettings = NotifySettings()
