"""A source that asks a reader for power again and again: what RAPL, NVML, the PMIC and HTTP plugs have in common."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from meter_bridge.protocol.frames import DEVICE_MS_MODULUS, SEQUENCE_MODULUS, Frame, Hello
from meter_bridge.sources.base import Arrival, Emit, LinkEvent, Source, stamp
from shared.kernel.clock import monotonic_ns, utc_ns
from shared.kernel.errors import EpiError

HELLO_EVERY_S = 1.0
LONGEST_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Power of every channel, and when it was true: the end of its averaging interval, in monotonic nanoseconds."""

    power_w: tuple[float, ...]
    at_mono_ns: int
    voltage_v: tuple[float, ...] | None = None
    current_a: tuple[float, ...] | None = None
    energy_wh: tuple[float, ...] | None = None


class Reader(Protocol):
    """Something that can be asked for power."""

    @property
    def hello(self) -> Hello:
        """What it is."""

    async def open(self) -> None:
        """Find the device; raises an `EpiError` when it is not there."""

    async def read(self) -> Reading | None:
        """Return the power now, or None when there is nothing new yet; raises an `EpiError` when the device failed."""

    async def close(self) -> None:
        """Let the device go."""


class PolledSource(Source):
    """Asks `reader` at the rate of its hello, on an absolute schedule; a failing device is opened again."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader.hello.channels, "the meter has not been asked yet")
        self._reader = reader
        self._seq = 0
        # Readings are stamped by the host's own clock, which goes on whatever the device does.
        self._begun_ns = monotonic_ns()

    async def run(self, emit: Emit) -> None:
        """Read until cancelled; back-off doubles up to `LONGEST_WAIT_S`."""
        wait_s = 0.2
        while True:
            connected = False
            try:
                await self._reader.open()
                connected = True
                emit(stamp(LinkEvent("connected", self._reader.hello.device)))
                wait_s = 0.2
                await self._poll(emit)
            except (EpiError, OSError) as error:
                self._problem = str(error)
                if connected:
                    emit(stamp(LinkEvent("disconnected", str(error))))
            finally:
                await self._reader.close()
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    async def _poll(self, emit: Emit) -> None:
        hello = self._reader.hello
        period_ns = round(1e9 / hello.rate_hz)
        due_ns = monotonic_ns()
        hello_ns = 0
        while True:
            reading = await self._reader.read()
            now_ns, now_utc_ns = monotonic_ns(), utc_ns()
            if now_ns >= hello_ns:
                emit(Arrival(hello, now_ns, now_utc_ns))
                hello_ns = now_ns + round(HELLO_EVERY_S * 1e9)
            if reading is not None:
                self._problem = None
                emit(Arrival(self._frame(reading), now_ns, now_utc_ns))
            due_ns += period_ns
            if due_ns - now_ns < period_ns // 4:
                # Late: the reading is left out rather than taken twice in one moment.
                due_ns = now_ns + period_ns
            await asyncio.sleep((due_ns - monotonic_ns()) / 1e9)

    def _frame(self, reading: Reading) -> Frame:
        frame = Frame(
            power_w=reading.power_w, seq=self._seq,
            device_ms=max(0, (reading.at_mono_ns - self._begun_ns) // 1_000_000) % DEVICE_MS_MODULUS,
            voltage_v=reading.voltage_v, current_a=reading.current_a, energy_wh=reading.energy_wh,
        )  # fmt: skip
        self._seq = (self._seq + 1) % SEQUENCE_MODULUS
        return frame
