"""Settings of the orchestrator: where the agents are and where results go."""

from pathlib import Path

from pydantic import Field

from orchestrator.notify.settings import NotifySettings
from shared.settings import AgentAddress, DaemonSettings


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
