"""Reading a campaign spec from a file; plans that it names by file become part of it."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from orchestrator.domain.campaign.spec import CampaignSpec
from shared.kernel.errors import ConfigurationError
from shared.kernel.regular_files import RECORDS_BYTES, SETTINGS_BYTES, read_text
from shared.kernel.settings import validate_settings

_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)


def load_spec(path: Path, **overrides: object) -> CampaignSpec:
    """Read a campaign spec from TOML, or from JSON if the file is called `.json`; `overrides` replace top-level fields.

    Raises:
        ConfigurationError: unreadable file, bad TOML or JSON, or a field at fault (named).
    """
    read, language = (json.loads, "JSON") if path.suffix == ".json" else (tomllib.loads, "TOML")
    try:
        data = read(read_text(path, SETTINGS_BYTES))
    except OSError as error:
        raise ConfigurationError(f"cannot read the campaign spec: {error.strerror}", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"not valid {language}: {error}", where=str(path)) from error
    if not isinstance(data, dict):
        raise ConfigurationError("a campaign spec is a table of fields", where=str(path))
    return validate_settings(CampaignSpec, _with_plans(data, path.parent) | overrides, where=str(path))


def _with_plans(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the spec with the plans in it that its variants name by file, relative to the spec's folder."""
    variants = data.get("variants")
    if not isinstance(variants, dict):
        return data
    read = {
        name: {**table, "plan": _plan(folder / table["plan"], f"variants.{name}.plan")}
        for name, table in variants.items()
        if isinstance(table, dict) and isinstance(table.get("plan"), str) and not _SHA256.match(table["plan"])
    }
    return {**data, "variants": {**variants, **read}}


def _plan(path: Path, where: str) -> dict[str, Any]:
    try:
        plan = json.loads(read_text(path, RECORDS_BYTES))
    except OSError as error:
        raise ConfigurationError(f"cannot read the plan {path}: {error.strerror}", where=where) from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is no JSON: {error}", where=where) from error
    if not isinstance(plan, dict):
        raise ConfigurationError(f"{path} holds no plan", where=where, hint="`epi surgery plan` writes one")
    return plan
