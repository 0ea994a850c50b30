"""Settings of a daemon: one TOML file, validated on reading, errors that name file, key and cure."""

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from shared.errors import ConfigurationError
from shared.records import NodeName, Record


class DaemonSettings(Record):
    """What every daemon needs; each part adds its own fields in its own subclass."""

    name: NodeName
    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    token_file: Path | None = None
    state_dir: Path


class AgentAddress(Record):
    """Where an agent is and which token opens it."""

    name: NodeName
    url: str = Field(pattern=r"^https?://[^\s/]+$")
    token_file: Path | None = None


S = TypeVar("S", bound=Record)


def load_settings(cls: type[S], path: Path) -> S:
    """Read a TOML file into `cls`.

    Raises:
        ConfigurationError: unreadable file, bad TOML, or a field that does not fit, named with its key.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read the settings: {error.strerror}", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(whole file)"
        raise ConfigurationError(f"{key}: {first['msg']}", where=where) from error
