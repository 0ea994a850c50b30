"""Builds the answers of the API that are one record: the samples of a short window, and its raw frames.

Not here: windows of any length, and calibration (`sample_pieces`), HTTP (`app`), queries (`trace`).
"""

import asyncio
import math
from dataclasses import replace

from meter_bridge.instrument.calibration import CalibrationRecord
from meter_bridge.sample_pieces import PieceBuilder, PieceRequest
from meter_bridge.trace.reader import TraceReader
from meter_bridge.trace.records import EXTRA_QUANTITIES, StoredSample, unpack_extra
from shared.kernel.records import Instrument, NodeName, Record
from shared.wire.meter_api import SampleBlock, WindowSummary


async def sample_block(
    pieces: PieceBuilder,
    start_utc_ns: int,
    end_utc_ns: int,
    calibration: CalibrationRecord | None,
    *,
    fallback: Instrument,
) -> SampleBlock:
    """Return all pieces of a short window as one; `fallback` measures an empty window."""
    utc_ns: list[int] = []
    power_w: dict[NodeName, list[float | None]] = {}
    asked = PieceRequest(start_utc_ns, end_utc_ns, calibration)
    while True:
        piece = await pieces.piece(asked, fallback=fallback)
        utc_ns += piece.utc_ns
        for node, values in piece.power_w.items():
            power_w.setdefault(node, []).extend(values)
        if piece.window is not None:
            break
        asked = replace(asked, cursor=piece.next)
    # In a thread: a long window must not make the loop late for the next line of the meter.
    return await asyncio.to_thread(_block, piece.window, utc_ns, power_w)


def _block(window: WindowSummary, utc_ns: list[int], power_w: dict[NodeName, list[float | None]]) -> SampleBlock:
    return SampleBlock(
        instrument=window.instrument,
        utc_ns=tuple(utc_ns),
        power_w={node: tuple(values) for node, values in power_w.items()},
        events=window.events,
        energy_register_j=window.energy_register_j,
    )


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


def _valid(value: float) -> float | None:
    return None if math.isnan(value) else value
