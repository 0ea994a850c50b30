"""Settings of the orchestrator: where the agents are, where results go, who is told."""

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from shared.kernel.records import Record
from shared.kernel.settings import AgentAddress, DaemonSettings

NoticeKind = Literal["started", "run_done", "attempt_failed", "paused", "finished", "failed", "cancelled"]
ALL_KINDS: tuple[NoticeKind, ...] = get_args(NoticeKind)
SURGEON = "surgeon"
"""The surgeon's name among the agents; no node may have it."""


class WebhookSettings(Record):
    """One receiver of signed webhooks (the Standard Webhooks scheme)."""

    url: str = Field(pattern=r"^https?://", description="where notices are posted")
    secret_file: Path = Field(description="file with the shared secret: base64, optionally prefixed whsec_")
    kinds: tuple[NoticeKind, ...] = Field(default=ALL_KINDS, description="which notices")


ChatId = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


class TelegramSettings(Record):
    """The bot; it answers only the chats named here."""

    token_file: Path = Field(description="file with the token that BotFather gave")
    chat_ids: tuple[ChatId, ...] = Field(min_length=1, description="chats that are told and may command")
    api_url: str = Field(
        default="https://api.telegram.org", pattern=r"^https?://[^\s]+[^/]$", description="the Bot API"
    )
    kinds: tuple[NoticeKind, ...] = Field(
        default=("started", "paused", "finished", "failed", "cancelled", "attempt_failed"), description="which notices"
    )


class NotifySettings(Record):
    """Who is told what."""

    webhooks: tuple[WebhookSettings, ...] = Field(default=(), description="receivers of signed webhooks")
    telegram: TelegramSettings | None = Field(default=None, description="the Telegram bot; null: none")


class ScorerAddress(AgentAddress):
    """A node agent that no meter watches, and what of its machine it may use."""

    threads: int | None = Field(default=None, ge=1, le=1024, description="CPU threads; null: as many as the spec says")
    gpu_layers: int = Field(default=0, ge=0, le=10_000, description="layers on its GPU; 999: all")


class OrchestratorSettings(DaemonSettings):
    """One TOML file; the first of `nodes` is the root node that runs the engine."""

    nodes: tuple[AgentAddress, ...] = Field(min_length=1, description="node agents; the first is the usual root")
    surgeon: AgentAddress = Field(description="the surgeon")
    meter: AgentAddress = Field(description="the meter bridge")
    scorers: tuple[ScorerAddress, ...] = Field(
        default=(), description="node agents that no meter watches: they answer the questions behind the measurement"
    )
    results_dir: Path = Field(description="folder of all result trees")
    task_dirs: tuple[Path, ...] = Field(default=(), description="folders with benchmark tasks (YAML) of your own")
    workload_prompts: Path = Field(description="text file, one prompt a line")
    specs_dir: Path | None = Field(default=None, description="campaign specs that can be started by name")
    scrub_days: float = Field(
        default=7.0, ge=0, le=36_500,
        description="while no campaign runs, every artifact of the lab is hashed that often, in days; 0: never",
    )  # fmt: skip
    notify: NotifySettings = Field(default=NotifySettings(), description="who is told what happens")

    @model_validator(mode="after")
    def _nodes_have_names_of_their_own(self) -> Self:
        names = [SURGEON, *(node.name for node in (*self.nodes, *self.scorers))]
        if twice := sorted(name for name in set(names) if names.count(name) > 1):
            raise ValueError(f"nodes, scorers: {twice[0]!r} is the name of two agents")
        return self
