"""The demo's campaign spec: the `[campaign]` table of `demo.toml`, with what the command line says on top."""

import tomllib
from pathlib import Path

from orchestrator.domain.campaign.schedule import configurations_of
from orchestrator.domain.campaign.spec import CampaignSpec
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import CampaignId
from shared.kernel.regular_files import SETTINGS_BYTES, read_text
from shared.kernel.settings import validate_settings


def demo_spec(
    path: Path, *, campaign_id: CampaignId, configurations: str, repetitions: int | None, questions: int | None
) -> CampaignSpec:
    """Read the spec; null keeps the file's value.

    Raises:
        ConfigurationError: bad TOML, a field at fault, or an unknown configuration.
    """
    try:
        data = tomllib.loads(read_text(path, SETTINGS_BYTES))["campaign"]
    except (OSError, KeyError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"no usable [campaign] table: {error}", where=str(path)) from error
    data |= {"id": campaign_id, "configurations": configurations}
    if repetitions is not None:
        data["repetitions"] = repetitions
    if questions is not None:
        data["tasks"] = data.get("tasks", {}) | {"questions": questions}
    spec = validate_settings(CampaignSpec, data, where=f"{path} [campaign]")
    configurations_of(spec)
    return spec
