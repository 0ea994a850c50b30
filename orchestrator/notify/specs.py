"""Campaign specs that can be started by name: TOML files in one folder. No path ever comes from the network."""

import re
from pathlib import Path

from orchestrator.campaign.spec_file import load_spec
from orchestrator.domain.spec import CampaignSpec
from shared.errors import NotFoundError

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}\Z")


class SpecShelf:
    """The named specs under `folder`."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Return the names that can be started."""
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted(path.stem for path in self._folder.glob("*.toml") if _NAME.match(path.stem))

    def load(self, name: str, campaign_id: str) -> CampaignSpec:
        """Read a named spec under a new campaign id.

        Raises:
            NotFoundError: no such name.
            ConfigurationError: the file does not fit.
        """
        if self._folder is None or name not in self.names():
            raise NotFoundError("no such campaign spec", where=name, hint=f"known: {', '.join(self.names()) or 'none'}")
        return load_spec(self._folder / f"{name}.toml", id=campaign_id)
