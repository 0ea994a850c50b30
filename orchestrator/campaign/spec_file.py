"""Reading a campaign spec from a file."""

import json
import tomllib
from pathlib import Path

from orchestrator.domain.campaign.spec import CampaignSpec
from shared.kernel.errors import ConfigurationError
from shared.kernel.settings import validate_settings


def load_spec(path: Path, **overrides: object) -> CampaignSpec:
    """Read a campaign spec from TOML, or from JSON if the file is called `.json`; `overrides` replace top-level fields.

    Raises:
        ConfigurationError: unreadable file, bad TOML or JSON, or a field at fault (named).
    """
    read, language = (json.loads, "JSON") if path.suffix == ".json" else (tomllib.loads, "TOML")
    try:
        data = read(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read the campaign spec: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise ConfigurationError(f"not valid {language}: {error}", where=str(path)) from error
    if not isinstance(data, dict):
        raise ConfigurationError("a campaign spec is a table of fields", where=str(path))
    return validate_settings(CampaignSpec, data | overrides, where=str(path))
