"""The running bridge: source, ingest, store and live feed joined; what the API asks, it answers.

Not here: HTTP (`app`), settings (`settings`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meter_bridge.answers import sample_block
from meter_bridge.event_log import EventLog
from meter_bridge.frames import Hello
from meter_bridge.ingest import EarlierStream, Ingest
from meter_bridge.live import LiveHub
from meter_bridge.records import StoredEvent, StoredSample
from meter_bridge.settings import BridgeSettings
from meter_bridge.sources.base import Source
from meter_bridge.sources.registry import make_source
from meter_bridge.trace_reader import TraceReader
from meter_bridge.trace_store import TraceStore
from shared.clock import monotonic_ns, utc_ns
from shared.errors import BugError
from shared.meter_api import MeterStatus, SampleBlock
from shared.records import Instrument

log = logging.getLogger(__name__)

STALE_S = 2.0
"""No gap of a valid window may be longer (design: 2 s), so a silence of this length is worth an event."""
_STALE_FRAMES = 5
_RESUME_SAMPLES = 3000


class Bridge:
    """One meter, its trace and its listeners."""

    def __init__(self, settings: BridgeSettings) -> None:
        self.settings = settings
        self.source: Source = make_source(settings)
        self.hub = LiveHub(settings.channels)
        self._store: TraceStore | None = None
        self._reader: TraceReader | None = None
        self._ingest: Ingest | None = None
        self._events = EventLog(self._write_event)
        self._stale = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Bridge"]:
        """Open the store, read the source until left, commit everything on leaving."""
        path = self.settings.state_dir / "trace.sqlite"
        self._store = await TraceStore.open(path)
        self._reader = await TraceReader.open(path)
        self._ingest = Ingest(self._store, self._events, self._identify, (self._listen,))
        await self._resume(self._reader, self._ingest)
        self._events.record("started", utc_ns(), monotonic_ns(), detail=self.settings.name)
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._watch())]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._events.record("stopped", utc_ns(), monotonic_ns(), detail=self.settings.name)
            self._events.flush()
            await self._reader.close()
            await self._store.close()

    def status(self) -> MeterStatus:
        """Say how the meter is and how well it speaks."""
        ingest, totals = self._running, self._events.totals
        return MeterStatus(
            connected=ingest.connected and not self._stale,
            instrument=ingest.instrument,
            nodes=self.settings.channels,
            last_sample_utc_ns=None if ingest.last is None else ingest.last.utc_ns,
            frames=ingest.frames,
            gaps=totals["gap"],
            duplicates=totals["duplicate"],
            resets=totals["reset"] + totals["device_step"],
            malformed=totals["malformed"] + totals["overflow"],
            reconnects=ingest.reconnects,
            storing=self._open.problem is None,
            problems=tuple(self._problems()),
        )

    async def samples(self, start_utc_ns: int, end_utc_ns: int) -> SampleBlock:
        """Return the samples of a window, everything that has arrived until now included."""
        # One turn of the loop lets bytes that wait in the port be read first.
        await asyncio.sleep(0)
        await self._open.flush()
        if self._reader is None:
            raise BugError("the bridge is not running")
        return await sample_block(
            self._reader, self.settings.channels, start_utc_ns, end_utc_ns, fallback=self._running.instrument
        )

    @property
    def _open(self) -> TraceStore:
        if self._store is None:
            raise BugError("the bridge is not running")
        return self._store

    @property
    def _running(self) -> Ingest:
        if self._ingest is None:
            raise BugError("the bridge is not running")
        return self._ingest

    async def _resume(self, reader: TraceReader, ingest: Ingest) -> None:
        last = await reader.last()
        instrument = None if last is None else await reader.instrument_of(last.stream_id)
        if last is None or instrument is None or last.device_ms is None:
            return
        anchor = (await reader.anchors())[last.anchor_id]
        samples = await reader.tail(last.stream_id, _RESUME_SAMPLES)
        ingest.resume(EarlierStream(last.stream_id, anchor.boot_id, instrument, samples))

    def _problems(self) -> list[str]:
        ingest = self._running
        problems = [] if self.source.problem is None else [self.source.problem]
        if not problems and self._stale:
            problems.append("the meter is connected but sends no valid frame")
        if not problems and ingest.hello is None and not self.settings.source.accept_without_hello:
            problems.append("the meter has not said hello: what it is, is not known")
        if self._open.problem is not None:
            problems.append(self._open.problem)
        return problems

    def _identify(self, hello: Hello | None) -> Instrument:
        """Say what measures; whether it is emulated is the meter's word, never the configuration's."""
        known = self.settings.instrument
        if hello is None:
            kind = "ac_meter" if self.settings.source.accept_without_hello else "unknown"
            return Instrument.model_validate(
                {
                    "name": known.name, "kind": kind, "emulated": False,
                    "measurement_point": known.measurement_point, "relative_uncertainty": known.relative_uncertainty,
                }
            )  # fmt: skip
        return Instrument(
            name=hello.device, kind=hello.kind, emulated=hello.kind == "emulated", firmware=hello.firmware,
            calibration_id=hello.calibration, measurement_point=known.measurement_point,
            sample_rate_hz=hello.rate_hz, relative_uncertainty=known.relative_uncertainty,
        )  # fmt: skip

    def _write_event(self, event: StoredEvent) -> None:
        self._open.put_event(event)

    def _listen(self, sample: StoredSample) -> None:
        self.hub.push(
            sample.utc_ns, sample.mono_ns, sample.power_w, emulated=self._running.instrument.emulated
        )

    async def _read(self) -> None:
        try:
            await self.source.run(self._running.accept)
        except Exception:
            # Without its reader the bridge is useless: say so loudly, and let /v1/meter show the silence.
            log.exception("the source failed")
            raise

    async def _watch(self) -> None:
        """Notice silence once a second, and write counted-together events out."""
        while True:
            await asyncio.sleep(1.0)
            self._events.flush()
            ingest = self._running
            rate = None if ingest.hello is None else ingest.hello.rate_hz
            limit_s = max(STALE_S, _STALE_FRAMES / rate if rate else 0.0)
            last = ingest.last
            silent = last is None or (monotonic_ns() - last.arrival_mono_ns) / 1e9 > limit_s
            if silent and not self._stale and last is not None:
                self._events.record("stale", utc_ns(), monotonic_ns(), detail=f"no valid frame for {limit_s:.1f} s")
            elif self._stale and not silent:
                self._events.record("alive", utc_ns(), monotonic_ns(), detail="frames come again")
            self._stale = silent
