"""What a node agent reads from its TOML file.

Not here: the tables `[engines.NAME]`, which each engine's own module reads, and what a job asks for
(shared.wire.node_jobs).
"""

from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from node_agent.engines.base import Place
from node_agent.engines.registry import EngineTables
from shared.kernel.settings import AgentSettings


class NodeSettings(AgentSettings):
    """Settings of one node agent; `state_dir` holds artifacts, the job table, pid files, sockets and logs."""

    port: int = Field(default=8701, ge=1, le=65535, description="TCP port it listens on")
    worker_host: str = Field(default="127.0.0.1", description="the cluster's interface, never 0.0.0.0")
    worker_port: int = Field(default=50052, ge=1, le=65535, description="port of the RPC worker")
    threads: int = Field(default=1, ge=1, le=256, description="CPU threads of the RPC worker")
    engines: EngineTables = Field(default={}, validate_default=True, description="a table of its own for each engine")
    reserved_memory_bytes: int = Field(
        default=512 << 20, ge=0, le=1 << 50, description="memory that the system keeps; engines may take the rest"
    )
    allow_governor: bool = Field(default=False, description="may this agent set the CPU frequency governor?")
    source_url: str | None = Field(default=None, pattern=r"^https?://[^\s/]+$", description="where artifacts come from")
    rsync_source: str | None = Field(
        default=None,
        pattern=r"^([\w.-]+@)?[\w.-]+:[\w./-]+$",
        description="folder of artifacts for rsync over ssh, user@host:/path",
    )
    rsync_shell: str = Field(default="ssh -o BatchMode=yes", description="rsync's remote shell")
    prefer_rsync: bool = Field(default=False, description="take rsync where HTTP would do as well")
    artifact_quota_bytes: int | None = Field(
        default=None, ge=1, le=1 << 60, description="room for artifacts; null: the disk's"
    )
    source_token_file: Path | None = Field(default=None, description="token of source_url")
    source_ca_file: Path | None = Field(default=None, description="the lab's own CA, pinned; for an https source")

    @model_validator(mode="before")
    @classmethod
    def _read_former_dllama(cls, data: Any) -> Any:
        """Read the key `dllama` of earlier versions: distributed-llama's program."""
        if not isinstance(data, dict) or "dllama" not in data:
            return data
        rest = {key: value for key, value in data.items() if key != "dllama"}
        engines = dict(rest.get("engines", {}))
        if "program" in engines.get("distributed-llama", {}):
            raise ValueError("engines.distributed-llama.program is given twice: dllama is its former name")
        engines["distributed-llama"] = {**engines.get("distributed-llama", {}), "program": data["dllama"]}
        return {**rest, "engines": engines}

    @field_validator("worker_host")
    @classmethod
    def _worker_binds_one_interface(cls, host: str) -> str:
        try:
            address = ip_address(host)
        except ValueError as error:
            raise ValueError("give the IP address of the cluster's interface") from error
        if address.is_unspecified:
            raise ValueError("the worker has no authentication: bind it to the cluster's interface, not to all of them")
        return host

    @property
    def place(self) -> Place:
        """Where engines and workers live."""
        return Place(self.state_dir, self.worker_host, self.worker_port, self.threads)

    @property
    def artifacts_dir(self) -> Path:
        """Folder of the artifact store."""
        return self.state_dir / "artifacts"
