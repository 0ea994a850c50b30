"""The log of a running SPEC PTDaemon: what MLPerf Power measures with."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from meter_bridge.protocol.frames import Hello
from meter_bridge.sources.base import Source, SourceSettings
from meter_bridge.sources.log_file import LogSource, Parsed
from shared.kernel.numbers import decimal


def parse_ptdaemon(line: str) -> Parsed | None:
    """Read `Time,MM-DD-YYYY HH:MM:SS.mmm,Watts,w,Volts,v,Amps,a,PF,p,Mark,name`; None for other lines.

    That is what PTDaemon writes as MLPerf Power publishes it; -1 stands for a value the analyser did not deliver. The
    log's local time is taken as it stands: only differences of it are used.
    """
    words = line.strip().split(",")
    if len(words) < 4 or words[0] != "Time":
        return None
    fields = dict(zip(words[::2], words[1::2], strict=False))
    moment = datetime.strptime(fields["Time"], "%m-%d-%Y %H:%M:%S.%f").replace(tzinfo=UTC)
    return moment.timestamp(), (_value(fields["Watts"]),), (_value(fields["Volts"]),), (_value(fields["Amps"]),)


def _value(text: str) -> float:
    value = decimal(text.strip(), math.inf)
    return math.nan if value == -1 else value


class PtdaemonSettings(SourceSettings):
    """The log of a running SPEC PTDaemon; one channel."""

    kind: ClassVar[str] = "ptdaemon"

    path: Path

    @property
    def offered_channels(self) -> int:
        """The system under test."""
        return 1

    def make(self, channels: int) -> Source:
        """Return the source."""
        point = "AC input of the system under test, by the analyser behind PTDaemon"
        return LogSource(
            self.path, Hello("PTDaemon", "ptdaemon", 1, 1.0, measurement_point=point), lambda: parse_ptdaemon
        )


SOURCE = PtdaemonSettings
