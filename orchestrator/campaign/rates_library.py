"""Rates of hardware that ship with the product, by name, and rates files of one's own."""

import re
import tomllib
from pathlib import Path

from orchestrator.domain.campaign.rates import HardwareRates, Rates
from shared.kernel.errors import ConfigurationError
from shared.kernel.regular_files import SETTINGS_BYTES, read_text
from shared.kernel.settings import load_settings

_SHIPPED = Path(__file__).parent / "rates"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*\Z")


def published_names() -> list[str]:
    """Return the names of the hardware whose rates ship with the product."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def load_rates(name_or_file: str) -> HardwareRates | Rates:
    """Return shipped rates by their name, else those of a file: of hardware (with `engines`), or of one run.

    Raises:
        ConfigurationError: neither a shipped name nor a file that can be read; the field at fault is named.
    """
    if name_or_file in published_names():
        return load_settings(HardwareRates, _SHIPPED / f"{name_or_file}.toml")
    path = Path(name_or_file)
    if _NAME.fullmatch(name_or_file) and not path.exists():
        raise ConfigurationError(
            "neither rates that ship with the product nor a file", where=f"--rates {name_or_file}",
            hint=f"known by name: {', '.join(published_names())}",
        )  # fmt: skip
    return load_settings(HardwareRates, path) if _is_of_hardware(path) else load_settings(Rates, path)


def _is_of_hardware(path: Path) -> bool:
    try:
        return "engines" in tomllib.loads(read_text(path, SETTINGS_BYTES))
    except (OSError, ValueError, RecursionError):
        return False  # reading it as rates says what is wrong
