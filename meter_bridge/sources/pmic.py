"""The Raspberry Pi 5's own power chip, through `vcgencmd pmic_read_adc`. A cross-check only, never an AC meter.

It sees the board behind its supply, without USB devices and without the supply's losses.
"""

import asyncio
import re
from typing import ClassVar

from pydantic import Field

from meter_bridge.protocol.frames import Hello
from meter_bridge.sources.base import Source, SourceSettings
from meter_bridge.sources.polled import PolledSource, Reading
from shared.kernel.clock import monotonic_ns
from shared.kernel.errors import DataError, InfrastructureError
from shared.kernel.numbers import decimal
from shared.service.child_output import outputs

COMMAND = ("vcgencmd", "pmic_read_adc")
_LARGEST = 1000.0
"""Volts or amperes of a rail; a board has 5 V."""
_LINE = re.compile(r"^\s*(\S+?)_([AV])\s+(?:current|volt)\(\d+\)=([-+0-9.eE]+)[AV]\s*$")


class PmicReader:
    """One channel: the sum of volts x amperes over all rails that report both."""

    def __init__(self, rate_hz: float, command: tuple[str, ...]) -> None:
        self._rate_hz = rate_hz
        self._command = command

    @property
    def hello(self) -> Hello:
        """What it is."""
        return Hello(
            "pmic", "pmic", 1, self._rate_hz, measurement_point="Pi 5 rails behind the supply (cross-check), not AC"
        )

    async def open(self) -> None:
        """Try it once."""
        await self.read()

    async def read(self) -> Reading | None:
        """Return the board's power."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
        except OSError as error:
            raise InfrastructureError(
                "vcgencmd cannot be run", where=self._command[0], hint="only a Raspberry Pi has it"
            ) from error
        output, _ = await outputs(process)
        text = output.decode(errors="replace")
        if process.returncode:
            raise InfrastructureError(f"vcgencmd failed: {text[:200]}", where=" ".join(self._command))
        return Reading((rails_w(text),), monotonic_ns())

    async def close(self) -> None:
        """Nothing is held open."""


def rails_w(text: str) -> float:
    """Return the summed power of all rails in the output of pmic_read_adc, in watts.

    Raises:
        DataError: no rail reports both voltage and current.
    """
    values: dict[tuple[str, str], float] = {}
    for line in text.splitlines():
        if match := _LINE.match(line):
            try:
                values[match[1], match[2]] = decimal(match[3], _LARGEST)
            except ValueError as error:
                raise DataError(f"{match[1]}: {error}", where="pmic_read_adc") from error
    amperes = {rail: value for (rail, unit), value in values.items() if unit == "A" and (rail, "V") in values}
    watts = [value * values[rail, "V"] for rail, value in amperes.items()]
    if not watts:
        raise DataError("no rail with voltage and current", where="pmic_read_adc")
    return sum(watts)


class PmicSettings(SourceSettings):
    """The Raspberry Pi 5's power chip."""

    kind: ClassVar[str] = "pmic"

    rate_hz: float = Field(default=1.0, ge=0.01, le=5)

    @property
    def offered_channels(self) -> int:
        """The board."""
        return 1

    def make(self, channels: int) -> Source:
        """Return the source."""
        return PolledSource(PmicReader(self.rate_hz, COMMAND))


SOURCE = PmicSettings
