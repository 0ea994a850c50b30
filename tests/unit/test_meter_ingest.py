"""From arrivals to samples: clock steps, labels, streams, registers; with a real store."""

import asyncio
import itertools
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from meter_bridge.ingest import HELLO_WAIT_S, EarlierStream, Ingest
from meter_bridge.instrument.description import InstrumentSettings
from meter_bridge.protocol.frames import Frame, Hello, Malformed
from meter_bridge.sample_blocks import sample_block
from meter_bridge.sample_pieces import PieceBuilder
from meter_bridge.sources.base import Arrival, LinkEvent
from meter_bridge.timing.anchor import AnchorKeeper
from meter_bridge.trace.event_log import SINGLE_PER_S, EventLog
from meter_bridge.trace.reader import TraceReader
from meter_bridge.trace.records import StoredEvent, StoredSample
from meter_bridge.trace.store import TraceStore
from shared.kernel.records import Instrument

NS = 1_000_000_000
UTC0 = 1_800_000_000 * NS
HELLO = Hello("meter", "ac_meter", 2, 10.0, boot=1, crc=True)


@dataclass
class HostClock:
    """The two clocks of a host whose UTC can be stepped."""

    utc_minus_mono_ns: int = UTC0

    def reading(self) -> tuple[int, int]:
        return self.utc_minus_mono_ns, 100

    def arrival(self, item: Frame | Hello | Malformed | LinkEvent, mono_s: float) -> Arrival:
        mono = round(mono_s * NS)
        return Arrival(item, mono, mono + self.utc_minus_mono_ns)


@dataclass
class Lab:
    """An ingest with a real store, a host clock and everything it produced."""

    store: TraceStore
    reader: TraceReader
    host: HostClock = field(default_factory=HostClock)
    samples: list[StoredSample] = field(default_factory=list)
    events: list[StoredEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ingest = self.fresh_ingest()

    def fresh_ingest(self) -> Ingest:
        def write(event: StoredEvent) -> None:
            self.events.append(event)
            self.store.put_event(event)

        self.log = EventLog(write)
        keeper = AnchorKeeper(self.host.reading)
        return Ingest(self.store, self.log, identify, (self.samples.append,), keeper)

    def frame(self, number: int, *, late_s: float = 0.004, at_s: float | None = None, ms: int | None = None) -> None:
        at = number / 10 if at_s is None else at_s
        frame = Frame((5.0, 6.0), seq=number, device_ms=number * 100 if ms is None else ms)
        self.ingest.accept(self.host.arrival(frame, 1000 + at + late_s))

    def hello(self, at_s: float, hello: Hello = HELLO) -> None:
        self.ingest.accept(self.host.arrival(hello, 1000 + at_s))

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


def identify(hello: Hello | None) -> Instrument:
    if hello is None:
        return Instrument(name="m", kind="unknown", emulated=False)
    return Instrument(name=hello.device, kind=hello.kind, emulated=hello.emulated)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    store = await TraceStore.open(tmp_path / "trace.sqlite")
    reader = await TraceReader.open(tmp_path / "trace.sqlite")
    yield Lab(store, reader)
    await reader.close()
    await store.close()


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 0.75, -0.75, 0.02])
async def test_a_step_of_the_hosts_clock_does_not_bend_the_trace(lab: Lab, step_s: float) -> None:
    lab.hello(0)
    for number in range(600):
        if number == 300:
            lab.host.utc_minus_mono_ns += round(step_s * NS)
        lab.frame(number)
    await lab.store.flush()
    (step,) = [event for event in lab.events if event.kind == "clock_step"]
    assert f"{step_s:+.6f}" in step.detail
    # Inside and across the step the fitted monotonic times keep the device's pace.
    mono = [sample.mono_ns for sample in lab.samples]
    assert all(abs(b - a - NS // 10) < 2_000_000 for a, b in itertools.pairwise(mono))
    # After the step the trace follows the host's new UTC at once, as the orchestrator's windows do.
    last = lab.samples[-1]
    assert abs(last.utc_ns - (1059_900_000_000 + lab.host.utc_minus_mono_ns)) < 20_000_000
    # A block over the step is one straight trace, and names the step.
    pieces = PieceBuilder(lab.store.path, lab.reader, ("a", "b"), InstrumentSettings())
    everything = await sample_block(pieces, UTC0 - 10**15, UTC0 + 10**15, None, fallback=identify(None))
    assert len(everything.utc_ns) == 600
    assert all(abs(b - a - NS // 10) < 2_000_000 for a, b in itertools.pairwise(everything.utc_ns))
    assert "clock_step" in {event.kind for event in everything.events}


async def test_a_torn_pair_of_clock_readings_is_no_step(lab: Lab) -> None:
    lab.hello(0)
    for number in range(50):
        lab.frame(number)
    torn = lab.host.arrival(Frame((5.0, 6.0), seq=50, device_ms=5000), 1005.004)
    lab.ingest.accept(Arrival(torn.item, torn.mono_ns, torn.utc_ns + 50_000_000))
    assert "clock_step" not in lab.kinds()


async def test_frames_wait_for_the_hello_that_labels_them(lab: Lab) -> None:
    for number in range(8):
        lab.frame(number)
    assert lab.samples == []
    lab.hello(0.85, Hello("emulator", "emulated", 2, 10.0, emulated=True))
    assert len(lab.samples) == 8
    assert lab.ingest.instrument.emulated
    assert len({sample.stream_id for sample in lab.samples}) == 1


async def test_frames_that_waited_are_stamped_by_the_soonest_of_them(lab: Lab) -> None:
    for number in range(8):
        # The first frames lay in a buffer for up to half a second.
        lab.frame(number, late_s=max(0.004, 0.5 - number / 10))
    lab.hello(0.85)
    late = [sample.mono_ns / NS - 1000 - number / 10 for number, sample in enumerate(lab.samples)]
    assert all(abs(value - 0.004) < 1e-6 for value in late)


async def test_without_a_hello_frames_are_stored_as_unknown(lab: Lab) -> None:
    for number in range(int(HELLO_WAIT_S * 10) + 20):
        lab.frame(number)
    assert len(lab.samples) == int(HELLO_WAIT_S * 10) + 20
    await lab.store.flush()
    instrument = await lab.reader.instrument_of(lab.samples[0].stream_id)
    assert instrument is not None
    assert instrument.kind == "unknown"


async def test_another_meter_after_a_reconnect_does_not_inherit_the_label(lab: Lab) -> None:
    lab.ingest.accept(lab.host.arrival(LinkEvent("connected"), 999))
    lab.hello(0)
    for number in range(500, 520):
        lab.frame(number)
    lab.ingest.accept(lab.host.arrival(LinkEvent("disconnected"), 1053))
    lab.ingest.accept(lab.host.arrival(LinkEvent("connected"), 1054))
    for number in range(5):
        lab.frame(number, at_s=55 + number / 10)
    lab.hello(56, Hello("emulator", "emulated", 2, 10.0, boot=2, emulated=True))
    lab.frame(5, at_s=56.1)
    await lab.store.flush()
    labels = []
    for stream in sorted({sample.stream_id for sample in lab.samples}):
        instrument = await lab.reader.instrument_of(stream)
        labels.append(instrument.kind if instrument else None)
    assert labels == ["ac_meter", "emulated"]
    assert lab.ingest.reconnects == 1


async def test_gaps_duplicates_and_damage_become_events_with_their_time(lab: Lab) -> None:
    lab.hello(0)
    for number in [0, 1, 2, 6, 6, 7]:
        lab.frame(number)
    lab.ingest.accept(lab.host.arrival(Malformed("CRC differs", b"xx"), 1001))
    gap = next(event for event in lab.events if event.kind == "gap")
    assert gap.count == 3
    assert gap.utc_ns == 1000_604_000_000 + UTC0
    assert lab.kinds() == ["hello", "gap", "duplicate", "malformed"]
    assert [sample.seq for sample in lab.samples] == [0, 1, 2, 6, 7]


async def test_a_device_clock_stepped_ahead_starts_a_new_stream(lab: Lab) -> None:
    lab.hello(0)
    for number in range(200):
        lab.frame(number, ms=number * 100 + (7000 if number >= 100 else 0))
    assert lab.kinds() == ["hello", "device_step"]
    times = [sample.utc_ns for sample in lab.samples]
    assert all(abs(b - a - NS // 10) < 5_000_000 for a, b in itertools.pairwise(times))


async def test_lines_that_waited_in_a_buffer_at_the_start_do_no_harm(lab: Lab) -> None:
    lab.hello(0)
    for number in range(100):
        # The first twenty frames come at once, 2 s late.
        lab.frame(number, late_s=max(0.004, 2.0 - number / 10))
    late = [sample.mono_ns / NS - 1000 - number / 10 for number, sample in enumerate(lab.samples)]
    assert all(abs(value) < 0.6 for value in late[25:])
    assert set(lab.kinds()) <= {"hello", "resync"}


async def test_a_restarted_bridge_goes_on_with_the_stream_and_counts_what_it_missed(lab: Lab) -> None:
    lab.hello(0)
    for number in range(100):
        lab.frame(number)
    await lab.store.flush()
    first = lab.samples[0].stream_id
    tail = await lab.reader.tail(first, 50)
    earlier = EarlierStream(first, lab.ingest._keeper.current.boot_id, lab.ingest.instrument, tail)

    lab.samples.clear()
    lab.ingest = lab.fresh_ingest()
    lab.ingest.resume(earlier)
    for number in range(130, 140):
        lab.frame(number)
    assert {sample.stream_id for sample in lab.samples} == {first}
    assert lab.log.totals["gap"] == 30
    assert lab.ingest.instrument.kind == "ac_meter"
    # Frames that were sent before the crash and come again are recognised.
    lab.frame(139)
    assert lab.log.totals["duplicate"] == 1

    # Neither do lines that waited in the kernel meanwhile, and come late, hide that it is the same device.
    lab.ingest = lab.fresh_ingest()
    lab.ingest.resume(earlier)
    lab.samples.clear()
    for number in range(130, 160):
        lab.frame(number, late_s=max(0.004, 4.0 - (number - 130) / 10))
    assert {sample.stream_id for sample in lab.samples} == {first}

    # Another device, or the same after a reset, is not taken for it.
    lab.samples.clear()
    lab.ingest = lab.fresh_ingest()
    lab.ingest.resume(earlier)
    lab.hello(300)
    for number in range(5):
        lab.frame(number, at_s=300 + number / 10)
    assert first not in {sample.stream_id for sample in lab.samples}
    assert len(lab.samples) == 5


async def test_registers_that_clear_on_read_are_summed(lab: Lab) -> None:
    lab.hello(0, Hello("m", "ac_meter", 2, 10.0, energy_register="delta"))
    for number in range(10):
        frame = Frame((5.0, 6.0), seq=number, device_ms=number * 100, energy_wh=(0.5, 0.25))
        lab.ingest.accept(lab.host.arrival(frame, 1000 + number / 10))
    assert lab.samples[-1].register_wh == (5.0, 2.5)


async def test_device_time_that_wraps_goes_on(lab: Lab) -> None:
    lab.hello(0)
    for number in range(100):
        lab.frame(number, ms=(2**32 - 5000 + number * 100) % 2**32)
    assert lab.kinds() == ["hello"]
    times = [sample.utc_ns for sample in lab.samples]
    assert all(abs(b - a - NS // 10) < 5_000_000 for a, b in itertools.pairwise(times))


def test_a_storm_of_events_is_counted_whole_and_written_sparsely() -> None:
    written: list[StoredEvent] = []
    log = EventLog(written.append)
    for number in range(10_000):
        log.record("malformed", UTC0, number * 1_000_000, detail="x")
    log.flush()
    assert log.totals["malformed"] == 10_000
    assert sum(event.count for event in written) == 10_000
    assert len(written) <= 11 * (SINGLE_PER_S + 1)


async def test_flush_is_not_torn_by_an_impatient_caller(lab: Lab) -> None:
    lab.hello(0)
    for number in range(500):
        lab.frame(number)
    task = asyncio.create_task(lab.store.flush())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await lab.store.flush()
    assert await lab.reader.count() == 500


@pytest.mark.parametrize(
    "item",
    [
        Frame((1e308, 5.0), seq=1), Frame((5.0, 5.0), seq=1, voltage_v=(1e308, 1.0)), Frame((5.0, 5.0), seq=-1),
        Frame((5.0, 5.0), seq=1, frequency_hz=1e300), Frame((5.0, 5.0), seq=1, device_ms=10**30),
        Frame((5.0, 5.0), seq=1, energy_wh=(1e300, 1.0)), Frame((math.inf, 5.0), seq=1),
        Hello("meter", "csv", 2, 1e-300), Hello("meter", "csv", 2, math.nan),
    ],
)  # fmt: skip
async def test_no_source_passes_what_no_meter_can_mean(lab: Lab, item: Frame | Hello) -> None:
    lab.hello(0)
    lab.frame(0)
    lab.ingest.accept(lab.host.arrival(item, 1000.2))
    lab.frame(3)
    await lab.store.flush()
    assert [sample.seq for sample in lab.samples] == [0, 3]
    (event,) = [event for event in lab.events if event.kind == "malformed"]
    assert " is " in event.detail and lab.ingest.hello == HELLO
