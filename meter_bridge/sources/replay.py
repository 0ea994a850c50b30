"""A stored trace as a source: the recorded times run on from now, `speed` times as fast as they did.

Time is virtual: arrivals carry recorded times moved to the present, so drift and gaps are as recorded at any speed.
"""

import asyncio
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from meter_bridge.protocol.frames import Hello
from meter_bridge.sources.base import Arrival, Emit, LinkEvent, Source, SourceSettings
from meter_bridge.trace.recording import RecordingHead, read_head, read_recording
from shared.kernel.clock import monotonic_ns, utc_ns
from shared.kernel.errors import EpiError

HELLO_EVERY_NS = 1_000_000_000
_BREATHE_FRAMES = 50


class ReplaySource(Source):
    """Plays `path` once; at its end the source stays, with a problem that says so."""

    goes_on = False

    def __init__(self, path: Path, channels: int, *, speed: float = 1.0) -> None:
        super().__init__(channels, "the replay has not begun")
        self._path = path
        self._speed = speed

    async def run(self, emit: Emit) -> None:
        """Play the recording once, then wait until cancelled."""
        base_mono, base_utc, last_ns = monotonic_ns(), utc_ns(), 0
        try:
            head = await asyncio.to_thread(read_head, self._path)
            if len(head.nodes) != self.channels:
                self._problem = f"{self._path} has {len(head.nodes)} channels, {self.channels} are configured"
            else:
                last_ns = await self._play(head, emit, base_mono, base_utc)
                self._problem = f"the replay of {self._path.name} has ended"
        except EpiError as error:
            self._problem = str(error)
        emit(Arrival(LinkEvent("ended", self._problem or ""), base_mono + last_ns, base_utc + last_ns))
        await asyncio.Event().wait()

    async def _play(self, head: RecordingHead, emit: Emit, base_mono: int, base_utc: int) -> int:
        emit(Arrival(LinkEvent("connected", str(self._path)), base_mono, base_utc))
        self._problem = None
        hello, hello_due, offset_ns = replay_hello(head), 0, 0
        for number, recorded in enumerate(read_recording(self._path)):
            offset_ns = recorded.offset_ns
            wait_s = (base_mono + offset_ns / self._speed - monotonic_ns()) / 1e9
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            elif number % _BREATHE_FRAMES == 0:
                await asyncio.sleep(0)
            if offset_ns >= hello_due:
                emit(Arrival(hello, base_mono + offset_ns, base_utc + offset_ns))
                hello_due = offset_ns + HELLO_EVERY_NS
            emit(Arrival(recorded.frame, base_mono + offset_ns, base_utc + offset_ns))
        return offset_ns


def replay_hello(head: RecordingHead) -> Hello:
    """Return the hello of a replay: whatever was recorded, this is not an instrument."""
    return Hello(
        f"replay of {head.device}"[:64], "replay", len(head.nodes), round(head.rate_hz, 3), firmware=head.firmware,
        emulated=head.emulated, measurement_point=head.measurement_point, crc=True,
    )  # fmt: skip


class ReplaySettings(SourceSettings):
    """A stored trace."""

    kind: ClassVar[str] = "replay"

    path: Path
    speed: float = Field(default=1.0, ge=0.01, le=200)

    def make(self, channels: int) -> Source:
        """Return the source."""
        return ReplaySource(self.path, channels, speed=self.speed)


SOURCE = ReplaySettings
