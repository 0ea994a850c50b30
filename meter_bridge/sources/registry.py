"""Makes the source that the settings name."""

from meter_bridge import settings as conf
from meter_bridge.protocol.frames import Hello
from meter_bridge.settings import BridgeSettings
from meter_bridge.sources.base import Source
from meter_bridge.sources.logs import LogSource, csv_parser, parse_ptdaemon
from meter_bridge.sources.nvml import NvmlReader
from meter_bridge.sources.plugs import PlugReader
from meter_bridge.sources.pmic import PmicReader
from meter_bridge.sources.polled import PolledSource
from meter_bridge.sources.rapl import RaplReader
from meter_bridge.sources.replay import ReplaySource
from meter_bridge.sources.serial import SerialSource

_PTDAEMON_POINT = "AC input of the system under test, by the analyser behind PTDaemon"


def make_source(settings: BridgeSettings) -> Source:
    """Return the source of the settings, not yet running."""
    channels = len(settings.channels)
    match settings.source:
        case conf.SerialSettings() as source:
            return SerialSource(source.device, channels, baud=source.baud)
        case conf.ReplaySettings() as source:
            return ReplaySource(source.path, channels, speed=source.speed)
        case conf.RaplSettings() as source:
            return PolledSource(RaplReader(source.domains, source.rate_hz))
        case conf.NvmlSettings() as source:
            return PolledSource(NvmlReader(source.boards, source.rate_hz))
        case conf.PmicSettings() as source:
            return PolledSource(PmicReader(source.rate_hz))
        case conf.PlugSettings() as source:
            return PolledSource(PlugReader(source.plugs, source.rate_hz))
        case conf.PtdaemonSettings() as source:
            hello = Hello("PTDaemon", "ptdaemon", 1, 1.0, measurement_point=_PTDAEMON_POINT)
            return LogSource(source.path, hello, lambda: parse_ptdaemon)
        case conf.CsvSettings() as source:
            hello = Hello(
                source.path.name[:64], "csv", channels, source.rate_hz, measurement_point=source.measurement_point
            )
            return LogSource(source.path, hello, lambda: csv_parser(source.time_column, source.power_columns))
