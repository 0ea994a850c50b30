"""Builds the answers of the API from the trace: sample blocks and their CSV, calibration applied.

Not here: HTTP (`app`), queries (`trace_reader`).
"""

import asyncio
import math
from collections.abc import Iterator

from meter_bridge.instrument.calibration import CalibrationRecord
from meter_bridge.instrument.description import InstrumentSettings, with_calibration
from meter_bridge.trace.reader import TraceReader
from meter_bridge.trace.records import EXTRA_QUANTITIES, StoredEvent, StoredSample, unpack_extra
from shared.files.trace_csv import TRACE_HEADER, trace_lines
from shared.kernel.records import Instrument, NodeName, Record
from shared.wire.meter_api import SampleBlock, TraceEvent

_J_PER_WH = 3600.0


class BlockBuilder:
    """Makes sample blocks of one bridge; `known` is what its settings say of the instrument."""

    def __init__(self, reader: TraceReader, nodes: tuple[NodeName, ...], known: InstrumentSettings) -> None:
        self._reader = reader
        self._nodes = nodes
        self._known = known

    async def block(
        self, start_utc_ns: int, end_utc_ns: int, calibration: CalibrationRecord | None, *, fallback: Instrument
    ) -> SampleBlock:
        """Return the samples of [start, end), times strictly ascending; `fallback` measures an empty window."""
        found = await self._reader.samples(start_utc_ns, end_utc_ns)
        instrument = await self._instrument(found) or fallback
        offsets = await self._offsets(found)
        events = tuple(trace_event(event) for event in await self._reader.events(start_utc_ns, end_utc_ns))
        # In a thread: a long window must not make the loop late for the next line of the meter.
        return await asyncio.to_thread(self._assemble, found, offsets, instrument, calibration, events)

    def _assemble(
        self,
        found: list[StoredSample],
        offsets: dict[int, int],
        instrument: Instrument,
        calibration: CalibrationRecord | None,
        events: tuple[TraceEvent, ...],
    ) -> SampleBlock:
        """Sort, correct and lay out the samples; `offsets` are UTC minus monotonic by anchor."""
        timed = sorted(
            ((s.mono_ns + offsets[s.anchor_id], s) for s in found if len(s.power_w) == len(self._nodes)),
            key=lambda pair: pair[0],
        )
        samples = [sample for _, sample in timed]
        power_w = {
            node: _corrected([sample.power_w[channel] for sample in samples], node, calibration)
            for channel, node in enumerate(self._nodes)
        }
        means = {node: _mean(values) for node, values in power_w.items()}
        return SampleBlock(
            instrument=with_calibration(instrument, self._known, calibration, means),
            utc_ns=tuple(_strictly_ascending([at for at, _ in timed])),
            power_w=power_w,
            events=events,
            energy_register_j=self._register_j(samples),
        )

    async def _instrument(self, samples: list[StoredSample]) -> Instrument | None:
        """Return what measured the window: the newest instrument, or the emulated one if any was."""
        found: Instrument | None = None
        for stream_id in sorted({sample.stream_id for sample in samples}):
            instrument = await self._reader.instrument_of(stream_id)
            if instrument is not None and (found is None or not found.emulated):
                found = instrument
        return found

    async def _offsets(self, samples: list[StoredSample]) -> dict[int, int]:
        """Return UTC minus monotonic for each anchor: of the first one of its boot, so a clock step bends no block."""
        anchors = await self._reader.anchors()
        first: dict[str, int] = {}
        offsets = {}
        for anchor_id in dict.fromkeys(sample.anchor_id for sample in samples):
            anchor = anchors[anchor_id]
            offsets[anchor_id] = first.setdefault(anchor.boot_id, anchor.utc_minus_mono_ns)
        return offsets

    def _register_j(self, samples: list[StoredSample]) -> dict[NodeName, float | None] | None:
        """Return the register's energy between first and last sample; None unless both have it, in one stream."""
        if len(samples) < 2:
            return None
        first, last = samples[0], samples[-1]
        if first.register_wh is None or last.register_wh is None or first.stream_id != last.stream_id:
            return None
        spans = zip(self._nodes, first.register_wh, last.register_wh, strict=True)
        return {node: _valid((end - begin) * _J_PER_WH) for node, begin, end in spans}


class FrameBlock(Record):
    """Everything stored of each frame of a window, raw, as columns; null where a quantity was not sent.

    `quantities[name][node][i]` belongs to `utc_ns[i]`: power_w, voltage_v, current_a, power_factor, reactive_var.
    """

    utc_ns: tuple[int, ...]
    arrival_utc_ns: tuple[int, ...]
    device_ms: tuple[int | None, ...]
    seq: tuple[int | None, ...]
    stream: tuple[int, ...]
    frequency_hz: tuple[float | None, ...]
    quantities: dict[str, dict[NodeName, tuple[float | None, ...]]]


async def frame_block(
    reader: TraceReader, nodes: tuple[NodeName, ...], start_utc_ns: int, end_utc_ns: int
) -> FrameBlock:
    """Return the frames of [start, end) in the order of their arrival."""
    found = await reader.samples(start_utc_ns, end_utc_ns)
    return await asyncio.to_thread(_frames, [s for s in found if len(s.power_w) == len(nodes)], nodes)


def _frames(samples: list[StoredSample], nodes: tuple[NodeName, ...]) -> FrameBlock:
    extras = [unpack_extra(sample.extra, len(nodes)) for sample in samples]
    missing = (math.nan,) * len(nodes)
    columns = {"power_w": [sample.power_w for sample in samples]}
    for name in EXTRA_QUANTITIES:
        columns[name] = [extra.get(name, missing) for extra in extras]
    return FrameBlock(
        utc_ns=tuple(sample.utc_ns for sample in samples),
        # Both clocks are tied by the sample's own anchor: the difference of the fitted times gives it back.
        arrival_utc_ns=tuple(sample.utc_ns + sample.arrival_mono_ns - sample.mono_ns for sample in samples),
        device_ms=tuple(sample.device_ms for sample in samples),
        seq=tuple(sample.seq for sample in samples),
        stream=tuple(sample.stream_id for sample in samples),
        frequency_hz=tuple(sample.frequency_hz for sample in samples),
        quantities={
            name: {node: tuple(_valid(row[channel]) for row in rows) for channel, node in enumerate(nodes)}
            for name, rows in columns.items()
        },
    )


def trace_event(event: StoredEvent) -> TraceEvent:
    """Return a stored event as the API has it."""
    return TraceEvent(utc_ns=event.utc_ns, kind=event.kind, count=event.count, detail=event.detail)


def csv_lines(block: SampleBlock) -> Iterator[str]:
    """Yield the block as CSV (`shared.files.trace_csv`), header first."""
    yield f"{TRACE_HEADER}\n"
    yield from trace_lines(block.utc_ns, block.power_w)


def _corrected(raw_w: list[float], node: NodeName, calibration: CalibrationRecord | None) -> tuple[float | None, ...]:
    channel = None if calibration is None else next((c for c in calibration.channels if c.node == node), None)
    if channel is None:
        return tuple(map(_valid, raw_w))
    return tuple(_valid(channel.correct(value)) for value in raw_w)


def _valid(value: float) -> float | None:
    return None if math.isnan(value) else value


def _mean(values: tuple[float | None, ...]) -> float:
    valid = [value for value in values if value is not None]
    return math.fsum(valid) / len(valid) if valid else 0.0


def _strictly_ascending(times: list[int]) -> list[int]:
    """Move equal times apart by a nanosecond: two streams may meet in one moment."""
    for index in range(1, len(times)):
        times[index] = max(times[index], times[index - 1] + 1)
    return times
