"""Settings of a daemon: one TOML file, validated on reading, errors that name file, key and cure."""

import tomllib
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, IPvAnyNetwork, ValidationError, model_validator

from shared.kernel.defects import first_defect
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import NodeName, Record
from shared.kernel.regular_files import SETTINGS_BYTES, read_text

LogLevel = Literal["debug", "info", "warning", "error"]


class DaemonSettings(Record):
    """What every daemon needs; each part adds its own fields in its own subclass."""

    name: NodeName = Field(description="how the service calls itself")
    host: str = Field(default="127.0.0.1", description="address it listens on; beyond loopback a token is required")
    port: int = Field(ge=1, le=65535, description="TCP port it listens on")
    token_file: Path | None = Field(
        default=None, description="file with the bearer token; null: no token, loopback only"
    )
    state_dir: Path = Field(description="folder of its databases and files")
    tls_cert: Path | None = Field(default=None, description="certificate chain (PEM); with tls_key HTTPS is served")
    tls_key: Path | None = Field(default=None, description="private key (PEM) of the certificate")
    log_level: LogLevel = Field(default="info", description="from which level on the daemon logs (to stderr)")
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        default=(), description="reverse proxies whose X-Forwarded-For is believed; nobody's by default"
    )

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together")
        return self

    @property
    def audit_file(self) -> Path:
        """Who asked this service for what."""
        return self.state_dir / "audit.jsonl"


class JobHistory(Record):
    """How long an agent remembers jobs that have ended; one that waits or runs is never forgotten."""

    days: float = Field(default=90.0, ge=0.01, le=36_500, description="an older one is forgotten")
    jobs: int = Field(default=20_000, ge=1, le=100_000_000, description="with more, the oldest are forgotten")


class AgentSettings(DaemonSettings):
    """What every agent that does jobs needs besides."""

    job_history: JobHistory = Field(default=JobHistory(), description="how long ended jobs are remembered")


class AgentAddress(Record):
    """Where an agent is, which token opens it, and which CA its certificate must come from."""

    name: NodeName = Field(description="name of the agent; of a node also in results")
    url: str = Field(
        pattern=r"^https?://[^\s/]+$", description="where it answers, for example http://192.168.50.11:8701"
    )
    token_file: Path | None = Field(default=None, description="file with its bearer token")
    ca_file: Path | None = Field(default=None, description="the lab's own CA, pinned; for https")


S = TypeVar("S", bound=Record)


def load_settings(cls: type[S], path: Path) -> S:
    """Read a TOML file into `cls`.

    Raises:
        ConfigurationError: unreadable file, bad TOML, or a field that does not fit, named with its key.
    """
    try:
        data = tomllib.loads(read_text(path, SETTINGS_BYTES))
    except OSError as error:
        raise ConfigurationError(f"cannot read the settings: {error.strerror}", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"not valid TOML: {error}", where=str(path)) from error
    return validate_settings(cls, data, where=str(path))


def validate_settings(cls: type[S], data: object, *, where: str) -> S:
    """Check parsed data against `cls`; the first field at fault is named.

    Raises:
        ConfigurationError: a field is missing, unknown or out of range.
    """
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(str(first_defect(error)), where=where) from error
