"""From arrivals to samples: order, time, identity; the one place where all items of a source pass.

Synchronous and quick: it is called from the reader of the source. Not here: storage (`trace_store`), the live feed
(`live`), what looks wrong about the values (`detectors`).
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from meter_bridge.protocol.frames import DEVICE_MS_MODULUS, SEQUENCE_MODULUS, Frame, Hello, Malformed
from meter_bridge.protocol.limits import fault_of
from meter_bridge.protocol.sequence import SequenceTracker
from meter_bridge.sources.base import Arrival, LinkEvent
from meter_bridge.timing.anchor import AnchorKeeper
from meter_bridge.timing.timebase import STEP_S, TimeBase
from meter_bridge.trace.event_log import EventLog
from meter_bridge.trace.records import EventKind, StoredSample, pack_extra
from meter_bridge.trace.store import TraceStore
from shared.kernel.records import Instrument

log = logging.getLogger(__name__)

_MATURE_BLOCKS = 5
_BUFFERED_S = 10.0
"""Lines that waited in the kernel while no bridge ran may be so old when they are read."""
HELLO_WAIT_S = 3.0
"""Frames wait so long for the hello that says what they are; hello comes once a second."""
StampedSample = Callable[[StoredSample], None]

_LINK_EVENTS: dict[str, EventKind] = {
    "connected": "connected", "disconnected": "disconnected", "overflow": "overflow", "resync": "resync",
    "ended": "ended",
}  # fmt: skip


@dataclass(slots=True)
class _Stream:
    """One device clock between two resets, measured by one instrument."""

    id: int
    timebase: TimeBase | None
    device_ms: int = 0
    register_wh: tuple[float, ...] | None = None

    def unwrap(self, device_ms: int) -> int:
        """Return the device's time without its wraps at 2^32 ms; frames come in order here."""
        return self.device_ms + (device_ms - self.device_ms) % DEVICE_MS_MODULUS


@dataclass(frozen=True, slots=True)
class EarlierStream:
    """The newest stream of the trace, as a restarted bridge finds it; `samples` are its last ones, oldest first."""

    stream_id: int
    boot_id: str
    instrument: Instrument
    samples: tuple[StoredSample, ...]


class Ingest:
    """Turns arrivals into stored samples and events."""

    def __init__(
        self,
        store: TraceStore,
        events: EventLog,
        describe: Callable[[Hello | None], Instrument],
        listeners: tuple[StampedSample, ...] = (),
        keeper: AnchorKeeper | None = None,
    ) -> None:
        self._store = store
        self._events = events
        self._describe = describe
        self._listeners = listeners
        self._keeper = keeper or AnchorKeeper()
        self._anchor_id: int | None = None
        self._sequence = SequenceTracker()
        self._stream: _Stream | None = None
        self._earlier: EarlierStream | None = None
        self._held: list[Arrival] = []
        self._soonest: Arrival | None = None
        self._frames_before = 0
        self._mute = False
        self._connected_once = False
        self._confirmed = False
        self.hello: Hello | None = None
        self.instrument = describe(None)
        self.frames = 0
        self.reconnects = 0
        self.connected = False
        self.connected_mono_ns = 0
        self.last_damage = ""
        self.last: StoredSample | None = None

    def resume(self, earlier: EarlierStream) -> None:
        """Offer the stream that was running when the bridge was stopped; it goes on if its device's clock did."""
        if earlier.boot_id == self._keeper.current.boot_id:
            self._earlier = earlier

    @property
    def timebase(self) -> TimeBase | None:
        """The clock fit of the running stream, if its device sends a clock."""
        return None if self._stream is None else self._stream.timebase

    def accept(self, arrival: Arrival) -> None:
        """Take one item from the source."""
        step = self._keeper.check(arrival.mono_ns, arrival.utc_ns)
        if step is not None:
            self._anchor_id = None
            self._event("clock_step", arrival, detail=f"the host's clock was stepped by {step / 1e9:+.6f} s")
        item = arrival.item
        if isinstance(item, Frame | Hello) and (fault := fault_of(item)) is not None:
            item = Malformed(fault)
        if isinstance(item, Frame):
            if not self._hold(item, arrival):
                self._frame(item, arrival)
        elif isinstance(item, Hello):
            self._hello(item, arrival)
        elif isinstance(item, Malformed):
            self.last_damage = item.reason
            line = f": {item.line!r}" if item.line else ""
            self._event("malformed", arrival, detail=f"{item.reason}{line}")
        else:
            self._link(item, arrival)

    def _hold(self, frame: Frame, arrival: Arrival) -> bool:
        """Keep frames back until it is known what measures; True when this one is kept."""
        if self._earlier is not None:
            self._go_on_with(self._earlier, frame, arrival)
            self._earlier = None
        if self.instrument.kind != "unknown" or self._stream is not None:
            return False
        if self._held and (arrival.mono_ns - self._held[0].mono_ns) / 1e9 > HELLO_WAIT_S:
            self._release()
            return False
        self._held.append(arrival)
        return True

    def _release(self) -> None:
        held, self._held = self._held, []
        self._soonest = min(held, key=_lateness, default=None)
        for arrival in held:
            if isinstance(arrival.item, Frame):
                self._frame(arrival.item, arrival)
        self._soonest = None

    def _hello(self, hello: Hello, arrival: Arrival) -> None:
        known, self.hello = self.hello, hello
        self._confirmed = True
        if hello == known:
            return
        rebooted = known is not None and hello.boot != known.boot
        instrument = self._describe(hello)
        if instrument != self.instrument or rebooted:
            # Samples before and after are not of one instrument, or not of one clock.
            self._stream = None
            if rebooted:
                self._event("reset", arrival, detail="the meter says it has started anew")
                self._sequence = SequenceTracker()
        self.instrument = instrument
        log.info("the meter says: %s %s firmware %s", hello.device, hello.kind, hello.firmware)
        self._event("hello", arrival, detail=f"{hello.device} {hello.kind} firmware {hello.firmware}")
        self._release()

    def _link(self, item: LinkEvent, arrival: Arrival) -> None:
        if item.kind == "connected":
            self.connected = True
            self.connected_mono_ns = arrival.mono_ns
            self.last_damage = ""
            self.reconnects += self._connected_once
            self._connected_once = True
            self._confirmed = False
        elif item.kind in ("disconnected", "ended"):
            self.connected = False
        self._log_link(item)
        self._event(_LINK_EVENTS[item.kind], arrival, detail=item.detail)

    def _log_link(self, item: LinkEvent) -> None:
        """Tell the log; of a device that opens and says nothing, only the first time that it was closed for it."""
        if item.kind == "connected":
            if not self._mute:
                log.info("meter connected%s: %s", " again" if self.reconnects else "", item.detail)
            self._frames_before = self.frames
        elif item.kind == "ended":
            log.info("meter: %s", item.detail)
        elif item.kind == "disconnected":
            if not self._mute:
                log.warning("meter disconnected: %s", item.detail)
            self._mute = self.frames == self._frames_before

    def _frame(self, frame: Frame, arrival: Arrival) -> None:
        judgement = self._sequence.judge(frame)
        if judgement.verdict == "duplicate":
            self._event("duplicate", arrival, detail=f"frame {frame.seq} came again")
            return
        if judgement.verdict == "gap":
            self._event("gap", arrival, count=judgement.missing, detail=f"before frame {frame.seq}")
        elif judgement.verdict == "reset":
            self._stream = None
            if not self._confirmed:
                # After a reconnect with another clock it may be another device: what it is, its hello will say.
                self.hello, self.instrument = None, self._describe(None)
            self._event("reset", arrival, detail=f"frame {frame.seq} at device time {frame.device_ms} ms")
            if self.instrument.kind == "unknown":
                self._sequence = SequenceTracker()
                self._held.append(arrival)
                return
        stream = self._stream_for(frame, arrival)
        mono_ns = arrival.mono_ns
        if stream.timebase is not None and frame.device_ms is not None:
            stream.device_ms = stream.unwrap(frame.device_ms)
            mono_ns = stream.timebase.add(stream.device_ms, arrival.mono_ns)
        if self._anchor_id is None:
            self._anchor_id = self._store.new_anchor(self._keeper.current, arrival.utc_ns)
        sample = StoredSample(
            utc_ns=self._keeper.current.utc(mono_ns), mono_ns=mono_ns, arrival_mono_ns=arrival.mono_ns,
            stream_id=stream.id, anchor_id=self._anchor_id, power_w=frame.power_w, seq=frame.seq,
            device_ms=frame.device_ms, extra=pack_extra(frame), frequency_hz=frame.frequency_hz,
            register_wh=self._register(stream, frame),
        )  # fmt: skip
        self.frames += 1
        if self._mute:
            self._mute = False
            log.info("the meter speaks again")
        self.last = sample
        self._store.put(sample)
        for listener in self._listeners:
            listener(sample)

    def _go_on_with(self, earlier: EarlierStream, frame: Frame, arrival: Arrival) -> None:
        """Continue the stream of an earlier run of the bridge if `frame` comes from the same device clock."""
        last = earlier.samples[-1]
        if None in (last.seq, last.device_ms, frame.seq, frame.device_ms) or len(last.power_w) != len(frame.power_w):
            return
        passed_s = (arrival.mono_ns - last.arrival_mono_ns) / 1e9
        device_s = ((frame.device_ms or 0) - (last.device_ms or 0)) / 1e3
        ahead = ((frame.seq or 0) - (last.seq or 0)) % SEQUENCE_MODULUS
        late_s = passed_s - device_s
        slack_s = 1.0 + 1e-3 * passed_s
        if device_s <= 0 or not -slack_s < late_s < slack_s + _BUFFERED_S or not 0 < ahead < SEQUENCE_MODULUS // 2:
            return
        first = earlier.samples[0]
        timebase = TimeBase(first.device_ms or 0, first.arrival_mono_ns)
        for sample in earlier.samples:
            timebase.add(sample.device_ms or 0, sample.arrival_mono_ns)
        self._stream = _Stream(earlier.stream_id, timebase, last.device_ms or 0, last.register_wh)
        self._sequence = SequenceTracker(last.seq, last.device_ms)
        self.instrument = earlier.instrument

    def _stream_for(self, frame: Frame, arrival: Arrival) -> _Stream:
        stream = self._stream
        if stream is not None and stream.timebase is not None and frame.device_ms is not None:
            early_s = -stream.timebase.residual_s(stream.unwrap(frame.device_ms), arrival.mono_ns)
            if early_s > STEP_S and stream.timebase.fit.blocks < _MATURE_BLOCKS:
                self._event("resync", arrival, detail=f"the first frames had waited {early_s:.3f} s in a buffer")
                stream = None
            elif early_s > STEP_S:
                self._event("device_step", arrival, detail=f"the meter's clock went {early_s:+.3f} s ahead")
                stream = None
        if stream is None:
            stream_id = self._store.new_stream(self._store.instrument_id(self.instrument), arrival.utc_ns)
            timebase = None if frame.device_ms is None else TimeBase(frame.device_ms, arrival.mono_ns)
            stream = self._stream = _Stream(stream_id, timebase, frame.device_ms or 0)
            soonest = self._soonest
            if timebase is not None and soonest is not None and isinstance(soonest.item, Frame):
                timebase.prime(stream.unwrap(soonest.item.device_ms or 0), soonest.mono_ns)
        return stream

    def _register(self, stream: _Stream, frame: Frame) -> tuple[float, ...] | None:
        """Return the running sum of the device's energy register, in watt-hours since the stream began or as sent."""
        if frame.energy_wh is None or self.hello is None or self.hello.energy_register == "none":
            return frame.energy_wh
        if self.hello.energy_register == "delta":
            before = stream.register_wh or (0.0,) * len(frame.energy_wh)
            stream.register_wh = tuple(
                old + (0.0 if math.isnan(new) else new) for old, new in zip(before, frame.energy_wh, strict=True)
            )
            return stream.register_wh
        return frame.energy_wh

    def _event(self, kind: EventKind, arrival: Arrival, *, count: int = 1, detail: str = "") -> None:
        utc_ns = self._keeper.current.utc(arrival.mono_ns)
        self._events.record(kind, utc_ns, arrival.mono_ns, count=count, detail=detail)


def _lateness(arrival: Arrival) -> int:
    """Return how late a frame came, up to a constant; frames without a clock come last."""
    device_ms = arrival.item.device_ms if isinstance(arrival.item, Frame) else None
    return 2**63 if device_ms is None else arrival.mono_ns - device_ms * 1_000_000
