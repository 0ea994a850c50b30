"""Campaign specs that are known by name: TOML files in one folder. No path ever comes from the network."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

from orchestrator.campaign.spec_file import load_spec
from orchestrator.domain.campaign.spec import CampaignSpec
from shared.kernel.errors import NotFoundError
from shared.kernel.records import CampaignId

EXAMPLES = Path(__file__).parent / "examples"
"""The specs that ship with the product: to begin with, since model and corpus are names of a lab."""
_NAME = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
SpecName = Annotated[str, StringConstraints(pattern=_NAME)]


class SpecLibrary:
    """The named specs under `folder`."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def names(self) -> list[SpecName]:
        """Return the names on the library."""
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted(path.stem for path in self._folder.glob("*.toml") if re.fullmatch(_NAME, path.stem))

    def path(self, name: SpecName) -> Path:
        """Return a named spec's file.

        Raises:
            NotFoundError: no such name.
        """
        if self._folder is None or name not in self.names():
            raise NotFoundError("no such campaign spec", where=name, hint=f"known: {', '.join(self.names()) or 'none'}")
        return self._folder / f"{name}.toml"

    def load(self, name: SpecName, campaign_id: CampaignId) -> CampaignSpec:
        """Read a named spec under a new campaign id.

        Raises:
            NotFoundError: no such name.
            ConfigurationError: the file does not fit.
        """
        return load_spec(self.path(name), id=campaign_id)
