"""The running bridge: source, ingest, store and live feed joined; what the API asks, it answers.

Not here: HTTP (`app`), settings (`settings`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from meter_bridge.find_channel import find_channel
from meter_bridge.ingest import EarlierStream, Ingest
from meter_bridge.instrument.calibration import OLD_AFTER_DAYS, CalibrationDraft, CalibrationRecord
from meter_bridge.instrument.calibration_store import CalibrationStore
from meter_bridge.instrument.description import instrument_of, with_calibration
from meter_bridge.instrument.detectors import ChannelWatch
from meter_bridge.live import QUEUE_MESSAGES, LiveSample
from meter_bridge.protocol.frames import Hello
from meter_bridge.sample_blocks import FrameBlock, frame_block, sample_block
from meter_bridge.sample_pieces import PIECE_SAMPLES, PieceBuilder, PieceRequest, trace_event
from meter_bridge.settings import BridgeSettings
from meter_bridge.sources.base import LinkEvent, Source, stamp
from meter_bridge.trace.event_log import EventLog
from meter_bridge.trace.maintenance import MaintenanceResult, maintain
from meter_bridge.trace.reader import TraceReader
from meter_bridge.trace.records import StoredSample
from meter_bridge.trace.store import TraceStore
from shared.kernel.clock import NS_PER_S, monotonic_ns, utc_ns
from shared.kernel.errors import BugError, ConfigurationError
from shared.kernel.records import Instrument
from shared.service.background import BackgroundTasks
from shared.service.broadcaster import Broadcaster
from shared.service.health import HealthRegistry, Problem
from shared.wire.meter_api import (
    ClockStatus,
    FoundChannel,
    MarkerRun,
    MeterStatus,
    SampleBlock,
    SamplePiece,
    TraceEvent,
)

log = logging.getLogger(__name__)

STALE_S = 2.0
"""No gap of a valid window may be longer (design: 2 s), so a silence of this length is worth an event."""
RAW = "raw"
_STALE_FRAMES = 5
_EXAMINE_EVERY_S = 5.0
_RESUME_SAMPLES = 3000
_LONGEST_MARKER_NS = 600 * NS_PER_S
_MARKER_LAG_S = 1.0
"""How late a meter may tell what happened; edges blurred by it are left out by `find_channel`."""


@dataclass(frozen=True)
class _Running:
    """What exists only while the bridge runs."""

    store: TraceStore
    reader: TraceReader
    pieces: PieceBuilder
    ingest: Ingest


class Bridge:
    """One meter, its trace and its listeners."""

    def __init__(self, settings: BridgeSettings) -> None:
        self.settings = settings
        self.source: Source = settings.source.make(len(settings.channels))
        self.broadcaster: Broadcaster[LiveSample] = Broadcaster(QUEUE_MESSAGES)
        self.calibrations = CalibrationStore(settings.state_dir / "calibration")
        self._watch = ChannelWatch(settings.channels)
        self._findings: list[str] = []
        self._state: _Running | None = None
        self._events = EventLog(lambda event: self._now.store.put_event(event))
        self._stale = False
        self.health = HealthRegistry()
        self.health.watch(self._problems)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Bridge"]:
        """Open the store, read the source until left, commit everything on leaving."""
        path = self.settings.state_dir / "trace.sqlite"
        store = await TraceStore.open(path, self.health)
        reader = await TraceReader.open(path)
        pieces = PieceBuilder(path, reader, self.settings.channels, self.settings.instrument)
        ingest = Ingest(store, self._events, self._instrument_of, (self._listen,))
        self._state = _Running(store, reader, pieces, ingest)
        await self._resume(self._state)
        self._events.record("started", utc_ns(), monotonic_ns(), detail=self.settings.name)
        try:
            async with BackgroundTasks(self.health) as background:
                has_end = not self.source.goes_on
                background.start("the reader of the meter", partial(self._read, ingest), has_end=has_end)
                background.start("the watch over the meter", partial(self._look, ingest), failing=False)
                yield self
        finally:
            self._events.record("stopped", utc_ns(), monotonic_ns(), detail=self.settings.name)
            self._events.flush()
            await reader.close()
            await store.close()

    def _instrument_of(self, hello: Hello | None) -> Instrument:
        return instrument_of(hello, self.settings.instrument, vouched=self.settings.source.vouched)

    @property
    def _now(self) -> _Running:
        if self._state is None:
            raise BugError("the bridge is not running")
        return self._state

    def status(self) -> MeterStatus:
        """Say how the meter is and how well it speaks."""
        ingest, totals = self._now.ingest, self._events.totals
        return MeterStatus(
            connected=ingest.connected and not self._stale,
            instrument=self._instrument(ingest),
            nodes=self.settings.channels,
            last_sample_utc_ns=None if ingest.last is None else ingest.last.utc_ns,
            frames=ingest.frames,
            gaps=totals["gap"],
            duplicates=totals["duplicate"],
            resets=totals["reset"] + totals["device_step"],
            malformed=totals["malformed"] + totals["overflow"],
            reconnects=ingest.reconnects,
            storing=self._now.store.problem is None,
            problems=self.health.problems(),
            clock=self._clock(ingest),
            ambient=None if ingest.hello is None else ingest.hello.ambient,
        )

    async def samples(self, start_utc_ns: int, end_utc_ns: int, calibration: str | None = None) -> SampleBlock:
        """Return the samples of a window, everything that has arrived until now included.

        `calibration` is an id, `RAW`, or None for the newest.

        Raises:
            NotFoundError: no such calibration.
        """
        record = self.calibration(calibration)
        await self._store_all()
        now = self._now
        return await sample_block(now.pieces, start_utc_ns, end_utc_ns, record, fallback=now.ingest.instrument)

    async def sample_piece(
        self,
        start_utc_ns: int,
        end_utc_ns: int,
        calibration: str | None = None,
        cursor: str | None = None,
        limit: int = PIECE_SAMPLES,
    ) -> SamplePiece:
        """Return a piece of a window of any length: the first, of what has arrived until now, or the one at `cursor`.

        A window that was begun keeps its calibration, also when a newer one comes into force.

        Raises:
            NotFoundError: no such calibration.
            ConfigurationError: the cursor is not of this window.
        """
        now = self._now
        if cursor is None:
            record = self.calibration(calibration)
            await self._store_all()
        else:
            record = self.calibration(now.pieces.calibration_of(cursor) or RAW)
        asked = PieceRequest(start_utc_ns, end_utc_ns, record, cursor, limit)
        return await now.pieces.piece(asked, fallback=now.ingest.instrument)

    async def _store_all(self) -> None:
        """Commit everything that has arrived until now."""
        # One turn of the loop lets bytes that wait in the port be read first.
        await asyncio.sleep(0)
        self._events.flush()
        await self._now.store.flush()

    async def frames(self, start_utc_ns: int, end_utc_ns: int) -> FrameBlock:
        """Return everything stored of the frames of a window, everything that has arrived until now included."""
        await self._now.store.flush()
        return await frame_block(self._now.reader, self.settings.channels, start_utc_ns, end_utc_ns)

    async def events(self, start_utc_ns: int, end_utc_ns: int) -> list[TraceEvent]:
        """Return the events of a window, everything until now included."""
        self._events.flush()
        await self._now.store.flush()
        return [trace_event(event) for event in await self._now.reader.events(start_utc_ns, end_utc_ns)]

    def calibration(self, name: str | None) -> CalibrationRecord | None:
        """Return the calibration to apply: by id, none for `RAW`, the newest for None."""
        if name == RAW:
            return None
        return self.calibrations.newest if name is None else self.calibrations.get(name)

    def calibrate(self, draft: CalibrationDraft) -> CalibrationRecord:
        """Fit and keep a new calibration; it is in force at once."""
        instrument = self._now.ingest.instrument
        name = f"{instrument.name} firmware {instrument.firmware}"
        return self.calibrations.add(draft, instrument=name, nodes=self.settings.channels)

    async def find_channel(self, marker: MarkerRun) -> FoundChannel:
        """Return whose channel rose with a marker that has ended; waits for what the meter tells late.

        Raises:
            ConfigurationError: no channel is named after the node, or the marker is longer than ten minutes.
        """
        if marker.node not in self.settings.channels:
            known = ", ".join(self.settings.channels)
            raise ConfigurationError("no channel is named after this node", where=marker.node, hint=f"known: {known}")
        if not 0 < marker.end_utc_ns - marker.start_utc_ns <= _LONGEST_MARKER_NS:
            raise ConfigurationError("a marker lasts up to ten minutes", where="end_utc_ns")
        await asyncio.sleep(_MARKER_LAG_S)
        end_utc_ns = marker.end_utc_ns + round(_MARKER_LAG_S * NS_PER_S)
        return find_channel(marker, await self.samples(marker.start_utc_ns, end_utc_ns, RAW))

    async def maintain(self, *, keep_days: float | None, compact_days: float | None) -> MaintenanceResult:
        """Delete or slim old samples; see `maintenance`."""
        return await maintain(self._now.store, keep_days=keep_days, compact_days=compact_days, now_utc_ns=utc_ns())

    async def _resume(self, state: _Running) -> None:
        last = await state.reader.last()
        instrument = None if last is None else await state.reader.instrument_of(last.stream_id)
        if last is None or instrument is None or last.device_ms is None:
            return
        anchor = (await state.reader.anchors())[last.anchor_id]
        samples = await state.reader.tail(last.stream_id, _RESUME_SAMPLES)
        state.ingest.resume(EarlierStream(last.stream_id, anchor.boot_id, instrument, samples))

    def _instrument(self, ingest: Ingest) -> Instrument:
        last = () if ingest.last is None else ingest.last.power_w
        means = {node: value for node, value in zip(self.settings.channels, last, strict=False) if value > 0}
        return with_calibration(ingest.instrument, self.settings.instrument, self.calibrations.newest, means)

    def _clock(self, ingest: Ingest) -> ClockStatus | None:
        if ingest.timebase is None or ingest.timebase.fit.blocks == 0:
            return None
        fit = ingest.timebase.fit
        return ClockStatus(
            drift_ppm=-fit.drift * 1e6, drift_uncertainty_ppm=fit.drift_uncertainty * 1e6, jitter_s=fit.jitter_s,
            span_s=fit.span_s,
        )  # fmt: skip

    def _problems(self) -> list[Problem]:
        """Say what is wrong; a dead meter is a problem, not a failure of the bridge."""
        ingest, store = self._now.ingest, self._now.store
        dead = self.source.problem
        if dead is None and self._stale:
            reason = f": {ingest.last_damage}" if ingest.last_damage else ""
            dead = f"the meter is connected but sends no valid frame{reason}"
        if dead is None and ingest.instrument.kind == "unknown":
            dead = "the meter has not said hello: what it is, is not known"
        problems = [] if dead is None else [Problem(dead)]
        if store.problem is not None:
            problems.append(Problem(store.problem, failing=True))
        newest = self.calibrations.newest
        if newest is not None and (age := newest.age_days(utc_ns())) > OLD_AFTER_DAYS:
            text = f"the calibration {newest.id} is {age:.0f} days old; make a new one: epi meter calibrate"
            problems.append(Problem(text))
        return problems + ([] if dead else [Problem(finding) for finding in self._findings])

    def _listen(self, sample: StoredSample) -> None:
        self._watch.add(sample.arrival_mono_ns, sample.power_w)
        if self._stale:
            self._stale = False
            log.info("frames come again")
            self._events.record("alive", sample.utc_ns, sample.arrival_mono_ns, detail="frames come again")
        if not self.broadcaster.wanted:
            return
        power_w, newest = sample.power_w, self.calibrations.newest
        if newest is not None:
            lines = {channel.node: channel for channel in newest.channels}
            power_w = tuple(
                lines[node].correct(value) if node in lines else value
                for node, value in zip(self.settings.channels, power_w, strict=True)
            )
        emulated = self._now.ingest.instrument.emulated
        self.broadcaster.publish(LiveSample(sample.utc_ns, sample.mono_ns, power_w, emulated))

    async def _read(self, ingest: Ingest) -> None:
        try:
            await self.source.run(ingest.accept)
        except Exception as error:
            ingest.accept(stamp(LinkEvent("disconnected", f"the reader of the meter died: {type(error).__name__}")))
            raise

    async def _look(self, ingest: Ingest) -> None:
        """Notice silence once a second, write counted-together events out, look at the values now and then."""
        examined_s = 0.0
        while True:
            await asyncio.sleep(1.0)
            self._events.flush()
            self._check_staleness(ingest)
            examined_s += 1.0
            if examined_s >= _EXAMINE_EVERY_S:
                examined_s = 0.0
                self._findings = self._watch.findings()

    def _check_staleness(self, ingest: Ingest) -> None:
        rate = None if ingest.hello is None else ingest.hello.rate_hz
        limit_s = max(STALE_S, _STALE_FRAMES / rate if rate else 0.0)
        since_ns = max(ingest.connected_mono_ns, 0 if ingest.last is None else ingest.last.arrival_mono_ns)
        silent = ingest.connected and (monotonic_ns() - since_ns) / 1e9 > limit_s
        if silent and not self._stale:
            self._stale = True
            log.warning("no valid frame for %.1f s", limit_s)
            self._events.record("stale", utc_ns(), monotonic_ns(), detail=f"no valid frame for {limit_s:.1f} s")
