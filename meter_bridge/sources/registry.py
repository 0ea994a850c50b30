"""Makes the source that the settings name; each kind imports its module only when it is asked for."""

from meter_bridge.settings import BridgeSettings
from meter_bridge.sources.base import Source


def make_source(settings: BridgeSettings) -> Source:
    """Return the source of the settings, not yet running."""
    from meter_bridge.sources.serial import SerialSource

    source = settings.source
    return SerialSource(source.device, len(settings.channels), baud=source.baud)
