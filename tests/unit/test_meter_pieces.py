"""A window in pieces is the window in one block, whatever the clock did and wherever a piece ends.

The block is calculated here by the plain way: everything in memory, sorted, corrected, described.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_bridge.instrument.budget import AccuracySettings
from meter_bridge.instrument.calibration import CalibrationDraft, CalibrationRecord, LoadPoint, fit_calibration
from meter_bridge.instrument.description import InstrumentSettings, with_calibration
from meter_bridge.sample_blocks import sample_block
from meter_bridge.sample_pieces import PieceBuilder, PieceRequest, exact_sum, trace_event
from meter_bridge.timing.anchor import Anchor
from meter_bridge.trace.reader import TraceReader
from meter_bridge.trace.records import StoredEvent, StoredSample
from meter_bridge.trace.store import TraceStore
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import Instrument
from shared.wire.meter_api import SampleBlock, SamplePiece

NS = 1_000_000_000
T0 = 1_800_000_000 * NS
NODES = ("n1", "n2")
KNOWN = InstrumentSettings(accuracy=AccuracySettings(ct_class_percent=3.0, ct_phase_error_deg=3.0, ic_step_w=1.0))
FALLBACK = Instrument(name="nothing", kind="unknown", emulated=False)
REAL = Instrument(name="real", kind="ac_meter", emulated=False)
EMULATED = Instrument(name="emulated", kind="emulated", emulated=True)


@dataclass(frozen=True)
class Stretch:
    """Samples between two changes: of the boot, of the host's UTC, of the stream."""

    gaps_ns: tuple[int, ...]
    powers: tuple[tuple[float, float], ...]
    reboots: bool
    step_ns: int
    new_stream: bool
    emulated: bool
    register: bool
    jumps_back_ns: int


watts = st.floats(-5, 500) | st.just(math.nan) | st.sampled_from((0.1, 1e-9, 3.3))
stretches = st.builds(
    Stretch,
    gaps_ns=st.lists(st.sampled_from((0, 1, NS // 10, NS, 90 * NS)), min_size=12, max_size=12).map(tuple),
    powers=st.lists(st.tuples(watts, watts), min_size=0, max_size=12).map(tuple),
    reboots=st.booleans(),
    step_ns=st.sampled_from((0, 0, 6_000_000, -NS, -60 * NS, 3600 * NS, -1800 * NS)),
    new_stream=st.booleans(),
    emulated=st.booleans(),
    register=st.booleans(),
    jumps_back_ns=st.sampled_from((0, 0, NS // 3)),
)


@asynccontextmanager
async def trace(folder: Path) -> AsyncIterator[tuple[TraceStore, TraceReader]]:
    store = await TraceStore.open(folder / "t.sqlite")
    reader = await TraceReader.open(store.path)
    try:
        yield store, reader
    finally:
        await reader.close()
        await store.close()


async def fill(store: TraceStore, history: Sequence[Stretch]) -> list[StoredSample]:
    """Store what an ingest would store of such a history."""
    mono_ns, offset, boot, number, energy = 100 * NS, T0 - 100 * NS, 0, 0, 0.0
    anchor = stream = None
    put: list[StoredSample] = []
    for stretch in history:
        if stretch.reboots:
            boot, anchor, stream = boot + 1, None, None
            offset += mono_ns - NS
            mono_ns = NS
        if stretch.step_ns or anchor is None:
            offset += stretch.step_ns
            anchor = store.new_anchor(Anchor(f"boot{boot}", offset), mono_ns + offset)
        if stretch.new_stream or stream is None:
            instrument = (EMULATED if stretch.emulated else REAL).model_copy(update={"firmware": str(number)})
            stream = store.new_stream(store.instrument_id(instrument), mono_ns + offset)
            mono_ns -= stretch.jumps_back_ns
        for gap, power in zip(stretch.gaps_ns, stretch.powers, strict=False):
            mono_ns, number, energy = mono_ns + gap, number + 1, energy + 0.25
            sample = StoredSample(
                utc_ns=mono_ns + offset, mono_ns=mono_ns, arrival_mono_ns=mono_ns + 5, stream_id=stream,
                anchor_id=anchor, power_w=power if number % 11 else (1.0, 2.0, 3.0), seq=number, device_ms=number,
                register_wh=(energy, math.nan if number % 5 == 0 else energy / 3) if stretch.register else None,
            )  # fmt: skip
            put.append(sample)
            store.put(sample)
    store.put_event(StoredEvent(T0 + NS, 1, "gap", 3, "x"))
    await store.flush()
    return put


async def plain_block(reader: TraceReader, start: int, end: int, calibration: CalibrationRecord | None) -> SampleBlock:
    """The whole window at once, as a reference."""
    found, anchors = await reader.samples(start, end), await reader.anchors()
    first: dict[str, int] = {}
    offsets = {}
    for anchor_id in dict.fromkeys(sample.anchor_id for sample in found):
        boot = anchors[anchor_id].boot_id
        offsets[anchor_id] = first.setdefault(boot, anchors[anchor_id].utc_minus_mono_ns)
    own = [sample for sample in found if len(sample.power_w) == len(NODES)]
    instrument: Instrument | None = None
    for stream in sorted({sample.stream_id for sample in own}):  # what sent other channels measured none of these
        candidate = await reader.instrument_of(stream)
        if candidate is not None and (instrument is None or not instrument.emulated):
            instrument = candidate
    own.sort(key=lambda sample: sample.mono_ns + offsets[sample.anchor_id])
    times = [sample.mono_ns + offsets[sample.anchor_id] for sample in own]
    for index in range(1, len(times)):
        times[index] = max(times[index], times[index - 1] + 1)
    lines = {} if calibration is None else {line.node: line for line in calibration.channels}
    power_w = {}
    for channel, node in enumerate(NODES):
        values = [sample.power_w[channel] for sample in own]
        values = [lines[node].correct(value) for value in values] if node in lines else values
        power_w[node] = tuple(None if math.isnan(value) else value for value in values)
    means = {}
    for node, column in power_w.items():
        valid = [value for value in column if value is not None]
        means[node] = math.fsum(valid) / len(valid) if valid else 0.0
    register = None
    if len(own) > 1 and own[0].stream_id == own[-1].stream_id and own[0].register_wh and own[-1].register_wh:
        spans = zip(NODES, own[0].register_wh, own[-1].register_wh, strict=True)
        joules = {node: (after - before) * 3600.0 for node, before, after in spans}
        register = {node: None if math.isnan(value) else value for node, value in joules.items()}
    return SampleBlock(
        instrument=with_calibration(instrument or FALLBACK, KNOWN, calibration, means), utc_ns=tuple(times),
        power_w=power_w, events=tuple(map(trace_event, await reader.events(start, end))), energy_register_j=register,
    )  # fmt: skip


def calibrated() -> CalibrationRecord:
    points = tuple(
        LoadPoint(node="n1", reference_w=watts * 1.03 + 0.1, measured_w=watts) for watts in (1.0, 3.0, 10.0, 30.0)
    )
    draft = CalibrationDraft(reference="ref", reference_relative_uncertainty=0.001, points=points)
    return fit_calibration(draft, version=1, created_utc_ns=T0, instrument="m", nodes=NODES)


CALIBRATION = calibrated()


async def in_pieces(builder: PieceBuilder, asked: PieceRequest) -> SampleBlock:
    """Put the pieces together; each is asked for twice, as after a lost answer, by a bridge that knows nothing more."""
    pieces: list[SamplePiece] = []
    while not pieces or pieces[-1].next is not None:
        if pieces:
            asked = replace(asked, cursor=pieces[-1].next)
        piece = await builder.piece(asked, fallback=FALLBACK)
        if asked.cursor is not None:
            builder._windows.clear()
            assert await builder.piece(asked, fallback=FALLBACK) == piece
        pieces.append(piece)
    assert all(len(piece.utc_ns) <= asked.limit for piece in pieces)
    assert all(piece.window is None for piece in pieces[:-1])
    window = pieces[-1].window
    assert window is not None
    assert window.n_samples == sum(len(piece.utc_ns) for piece in pieces)
    assert window.nodes == NODES
    return SampleBlock(
        instrument=window.instrument, utc_ns=tuple(at for piece in pieces for at in piece.utc_ns),
        power_w={node: tuple(value for piece in pieces for value in piece.power_w[node]) for node in NODES},
        events=window.events, energy_register_j=window.energy_register_j,
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.lists(stretches, max_size=6), st.integers(1, 30), st.booleans(),
    st.tuples(st.integers(-7200, 7200), st.integers(1, 14_400)),
)  # fmt: skip
def test_pieces_are_the_block(history: list[Stretch], limit: int, with_record: bool, window_s: tuple[int, int]) -> None:
    async def compare(folder: Path) -> None:
        async with trace(folder) as (store, reader):
            await fill(store, history)
            builder = PieceBuilder(store.path, reader, NODES, KNOWN)
            record = CALIBRATION if with_record else None
            for start, end in ((0, 2**62), (T0 + window_s[0] * NS, T0 + (window_s[0] + window_s[1]) * NS)):
                expected = await plain_block(reader, start, end, record)
                asked = PieceRequest(start, end, record, limit=limit)
                assert await in_pieces(builder, asked) == expected
                assert await sample_block(builder, start, end, record, fallback=FALLBACK) == expected

    with TemporaryDirectory() as folder:
        asyncio.run(compare(Path(folder)))


@given(st.lists(st.lists(st.floats(-1e9, 1e9, allow_subnormal=True), max_size=8), max_size=8))
def test_sums_over_pieces_are_exact(pieces: list[list[float]]) -> None:
    terms: tuple[float, ...] = ()
    for piece in pieces:
        terms = exact_sum((*terms, *piece))
    assert math.fsum(terms) == math.fsum(value for piece in pieces for value in piece)


async def test_what_arrives_after_the_first_piece_is_in_none(tmp_path: Path) -> None:
    async with trace(tmp_path) as (store, reader):
        anchor = store.new_anchor(Anchor("boot", T0), T0)
        stream = store.new_stream(store.instrument_id(REAL), T0)

        async def add(*numbers: int) -> None:
            for number in numbers:
                store.put(
                    StoredSample(T0 + number, number, number, stream, anchor, (float(number), 1.0), number, number)
                )
            await store.flush()

        await add(*range(10))
        builder = PieceBuilder(store.path, reader, NODES, KNOWN)
        asked = PieceRequest(T0, T0 + 100, None, limit=6)
        first = await builder.piece(asked, fallback=FALLBACK)
        await add(*range(10, 20))
        rest = await builder.piece(replace(asked, cursor=first.next), fallback=FALLBACK)
        assert first.power_w["n1"] + rest.power_w["n1"] == tuple(map(float, range(10)))
        assert rest.window is not None
        assert rest.window.n_samples == 10
        for cursor in ("", "x", "e30=", first.next or "", "\u00e9"):
            other = replace(asked, start_utc_ns=T0 + 1, cursor=cursor)
            with pytest.raises(ConfigurationError, match="cursor"):
                await builder.piece(other, fallback=FALLBACK)
        wider = PieceBuilder(store.path, reader, ("n1", "n2", "n3"), KNOWN)
        with pytest.raises(ConfigurationError, match="channels were changed"):
            await wider.piece(replace(asked, cursor=first.next), fallback=FALLBACK)
