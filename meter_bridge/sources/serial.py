"""A meter on a serial port: exclusive, reconnecting, resynchronising, never waiting for anybody.

Not here: what the lines mean (`parser`), gaps between frames (`sequence`).
"""

import asyncio
import contextlib
import fcntl
import termios
from pathlib import Path
from typing import Any, ClassVar

import serial
import serial_asyncio
from pydantic import Field

from meter_bridge.protocol.frames import Frame, Hello, Malformed
from meter_bridge.protocol.lines import LineBuffer
from meter_bridge.protocol.parser import LineParser
from meter_bridge.sources.base import Arrival, Emit, LinkEvent, Source, SourceSettings, stamp
from shared.kernel.clock import monotonic_ns, utc_ns

FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0
_STALE_FRAMES = 5
STALE_AFTER_S = 5.0
"""After so long (or five frame intervals) without a valid frame the port is opened anew: USB adapters can die open."""


class _Protocol(asyncio.Protocol):
    """Receives bytes of one connection."""

    def __init__(self, parser: LineParser, emit: Emit) -> None:
        self._parser = parser
        self._emit = emit
        self._lines = LineBuffer()
        self._first = True
        self.last_frame_mono_ns = monotonic_ns()
        self.period_s = 0.0
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """Stamp first, parse after: the stamp is what the clock fit lives on."""
        mono, utc = monotonic_ns(), utc_ns()
        overflows = self._lines.overflows
        for line in self._lines.feed(data):
            for item in self._parser.parse(line):
                if isinstance(item, Frame):
                    self.last_frame_mono_ns = mono
                elif isinstance(item, Hello):
                    self.period_s = 1 / item.rate_hz
                elif isinstance(item, Malformed) and self._first:
                    # Opening the port in the middle of a line is no damage.
                    self._emit(Arrival(LinkEvent("resync", item.reason), mono, utc))
                    continue
                self._emit(Arrival(item, mono, utc))
            self._first = False
        if self._lines.overflows > overflows:
            self._emit(Arrival(LinkEvent("overflow", "a line over the limit was dropped"), mono, utc))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits why it ended."""
        if not self.lost.done():
            self.lost.set_result(str(exc) if exc is not None else "closed")


class SerialSource(Source):
    """Reads protocol v1 (or a dialect) from `device`, which should be a stable name under /dev/serial/by-id."""

    def __init__(
        self, device: Path, channels: int, *, baud: int = 115_200, stale_after_s: float = STALE_AFTER_S
    ) -> None:
        super().__init__(channels, "the meter is not connected yet")
        self._device = device
        self._baud = baud
        self._stale_after_s = stale_after_s

    async def run(self, emit: Emit) -> None:
        """Keep a connection until cancelled; back-off doubles up to `LONGEST_WAIT_S` and starts again after a frame."""
        wait_s = FIRST_WAIT_S
        while True:
            try:
                transport, protocol = await self._open(emit)
            except (OSError, serial.SerialException, termios.error) as error:
                self._problem = f"the meter at {self._device} cannot be opened: {_reason(error)}"
            else:
                started = protocol.last_frame_mono_ns
                emit(stamp(LinkEvent("connected", str(self._device))))
                self._problem = None
                try:
                    reason = await self._until_lost(protocol)
                finally:
                    if not transport.is_closing():
                        # A port that somebody else holds open as well, as the emulator does, would keep the lock.
                        with contextlib.suppress(OSError):
                            fcntl.ioctl(transport.serial.fd, termios.TIOCNXCL)
                        transport.abort()
                    # One turn of the loop lets the transport close its descriptor before the next open.
                    await asyncio.sleep(0)
                if protocol.last_frame_mono_ns > started:
                    wait_s = FIRST_WAIT_S
                emit(stamp(LinkEvent("disconnected", reason)))
                self._problem = f"the meter at {self._device} is gone: {reason}"
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    async def _open(self, emit: Emit) -> tuple[Any, _Protocol]:
        loop = asyncio.get_running_loop()
        parser = LineParser(self.channels)
        # Opening a port can block in the driver (USB hubs do), so it happens off the loop.
        port = await asyncio.to_thread(self._open_port)
        transport, protocol = await serial_asyncio.connection_for_serial(loop, lambda: _Protocol(parser, emit), port)
        return transport, protocol

    def _open_port(self) -> serial.Serial:
        # `exclusive` locks against every program that asks for the lock; TIOCEXCL also against those that do not.
        port = serial.Serial(str(self._device), self._baud, exclusive=True)
        with contextlib.suppress(OSError):
            fcntl.ioctl(port.fd, termios.TIOCEXCL)
        return port

    async def _until_lost(self, protocol: _Protocol) -> str:
        while True:
            quiet_s = (monotonic_ns() - protocol.last_frame_mono_ns) / 1e9
            limit_s = max(self._stale_after_s, _STALE_FRAMES * protocol.period_s)
            left_s = limit_s - quiet_s
            if left_s <= 0:
                return f"no valid frame for {limit_s:.0f} s"
            done, _ = await asyncio.wait((protocol.lost,), timeout=left_s)
            if done:
                return protocol.lost.result()


def _reason(error: Exception) -> str:
    if isinstance(error, serial.SerialException) and "lock" in str(error):
        return "another program holds it"
    number = getattr(error, "errno", None)
    if number == 2:
        return "no such device; is the meter plugged in (or the emulator running)?"
    if number == 13:
        return "permission denied; add this user to the group of the device (dialout)"
    return str(error)


class SerialSettings(SourceSettings):
    """A meter on a serial port."""

    kind: ClassVar[str] = "serial"

    device: Path = Field(description="a stable name: /dev/serial/by-id/... or the emulator's link")
    baud: int = Field(default=115_200, ge=1200, le=4_000_000)
    accept_without_hello: bool = Field(
        default=False, description="for meters that never say hello: label them `ac_meter` on the user's word"
    )

    @property
    def vouched(self) -> bool:
        """The user's word."""
        return self.accept_without_hello

    def make(self, channels: int) -> Source:
        """Return the source."""
        return SerialSource(self.device, channels, baud=self.baud)


SOURCE = SerialSettings
