"""Reading a campaign spec from a TOML file."""

import tomllib
from pathlib import Path

from orchestrator.domain.spec import CampaignSpec
from shared.errors import ConfigurationError
from shared.settings import validate_settings


def load_spec(path: Path, **overrides: object) -> CampaignSpec:
    """Read a campaign spec from TOML; `overrides` replace top-level fields.

    Raises:
        ConfigurationError: unreadable file, bad TOML, or a field at fault (named).
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read the campaign spec: {error.strerror}", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"not valid TOML: {error}", where=str(path)) from error
    return validate_settings(CampaignSpec, data | overrides, where=str(path))
