"""Settings of the orchestrator: where the agents are, where results go, who is told."""

from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from shared.kernel.records import Record
from shared.kernel.settings import AgentAddress, DaemonSettings

NoticeKind = Literal["started", "run_done", "attempt_failed", "paused", "finished", "failed", "cancelled"]
ALL_KINDS: tuple[NoticeKind, ...] = get_args(NoticeKind)
SURGEON = "surgeon"
"""The surgeon's name among the agents; no node may have it."""


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

    @model_validator(mode="after")
    def _nodes_have_names_of_their_own(self) -> Self:
        names = [SURGEON, *(node.name for node in self.nodes)]
        if twice := sorted(name for name in set(names) if names.count(name) > 1):
            raise ValueError(f"nodes: {twice[0]!r} is the name of two agents")
        return self
