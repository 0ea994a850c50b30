"""Builds the answers of the API from the trace: sample blocks and their CSV.

Not here: HTTP (`app`), queries (`trace_reader`).
"""

import math
from collections.abc import Iterator

from meter_bridge.records import StoredSample
from meter_bridge.trace_reader import TraceReader
from shared.clock import iso_utc
from shared.meter_api import SampleBlock
from shared.records import Instrument, NodeName


async def sample_block(
    reader: TraceReader, nodes: tuple[NodeName, ...], start_utc_ns: int, end_utc_ns: int, *, fallback: Instrument
) -> SampleBlock:
    """Return the samples of [start, end), oldest first; `fallback` is the instrument of an empty window."""
    samples = [
        sample async for sample in reader.samples(start_utc_ns, end_utc_ns) if len(sample.power_w) == len(nodes)
    ]
    instrument = await _instrument(reader, samples) or fallback
    utc_ns = await _continuous_utc(reader, samples)
    order = sorted(range(len(samples)), key=lambda index: utc_ns[index])
    return SampleBlock(
        instrument=instrument,
        utc_ns=tuple(utc_ns[index] for index in order),
        power_w={
            node: tuple(_valid(samples[index].power_w[channel]) for index in order)
            for channel, node in enumerate(nodes)
        },
    )


def csv_lines(block: SampleBlock) -> Iterator[str]:
    """Yield the block as CSV: timestamp (ISO 8601 UTC), node, watts; no line where a channel sent no valid value."""
    yield "timestamp,node,watts\n"
    for index, at_utc_ns in enumerate(block.utc_ns):
        stamp = iso_utc(at_utc_ns)
        for node, values in block.power_w.items():
            value = values[index]
            if value is not None:
                yield f"{stamp},{node},{value!r}\n"


def _valid(value: float) -> float | None:
    return None if math.isnan(value) else value


async def _instrument(reader: TraceReader, samples: list[StoredSample]) -> Instrument | None:
    """Return what measured the window: the newest instrument, or the emulated one if any was."""
    found: Instrument | None = None
    for stream_id in sorted({sample.stream_id for sample in samples}):
        instrument = await reader.instrument_of(stream_id)
        if instrument is not None and (found is None or not found.emulated):
            found = instrument
    return found


async def _continuous_utc(reader: TraceReader, samples: list[StoredSample]) -> list[int]:
    """Return UTC of each sample under the anchor of the first one of its boot: a clock step does not bend a block."""
    if len({sample.anchor_id for sample in samples}) <= 1:
        return [sample.utc_ns for sample in samples]
    anchors = await reader.anchors()
    first: dict[str, int] = {}
    utc_ns = []
    for sample in samples:
        anchor = anchors[sample.anchor_id]
        utc_ns.append(sample.mono_ns + first.setdefault(anchor.boot_id, anchor.utc_minus_mono_ns))
    return utc_ns
