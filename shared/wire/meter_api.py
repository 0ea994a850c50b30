"""What the meter bridge answers: status, samples, live feed.

| endpoint | answer |
|---|---|
| `GET /v1/health` | `shared.wire.protocol.Health` |
| `GET /v1/meter` | `MeterStatus` |
| `GET /v1/samples?start_utc_ns=&end_utc_ns=` | `SampleBlock`, half-open, calibrated (`&calibration=raw` or an id) |
| `GET /v1/samples/piece?start_utc_ns=&end_utc_ns=&cursor=` | `SamplePiece`: the same in pieces, of any length |
| `GET /v1/trace.csv?start_utc_ns=&end_utc_ns=` | the same as CSV (`shared.files.trace_csv`), of any length |
| `POST /v1/find_channel` | body `MarkerRun`; answers `FoundChannel`: whose channel rose with the marker |
| `WS /v1/live?hz=` | `LivePower` messages, at most 10 per second; a slow client loses the oldest |
"""

from typing import ClassVar

from pydantic import Field

from shared.kernel.records import Instrument, NodeName, Record


class ClockStatus(Record):
    """The fit of the meter's clock to the host's: `drift_ppm` is how much the meter's clock runs fast."""

    drift_ppm: float
    drift_uncertainty_ppm: float
    jitter_s: float = Field(description="median delay of a line beyond the fitted line")
    span_s: float


class Ambient(Record):
    """What the meter's own sensor says of the room; null where it has none."""

    temperature_c: float | None = Field(default=None, ge=-40, le=125)
    humidity_percent: float | None = Field(default=None, ge=0, le=100, description="relative")


class MeterStatus(Record):
    """Is the meter alive, and how well does it speak?"""

    connected: bool
    instrument: Instrument
    nodes: tuple[NodeName, ...] = Field(description="node of each channel, in channel order")
    last_sample_utc_ns: int | None = None
    frames: int = 0
    gaps: int = 0
    duplicates: int = 0
    resets: int = 0
    malformed: int = 0
    reconnects: int = 0
    storing: bool = True
    problems: tuple[str, ...] = ()
    clock: ClockStatus | None = None
    ambient: Ambient | None = Field(default=None, description="null without a sensor")


class MarkerRun(Record):
    """The marker load on one node: [(start, end)] of its load in UTC ns, and the span of the whole marker."""

    node: NodeName
    on: tuple[tuple[int, int], ...]
    start_utc_ns: int
    end_utc_ns: int


class FoundChannel(Record):
    """What the marker on `node` showed: the rise of each channel in watts, and whose rose clearly, if any."""

    node: NodeName
    rises_w: dict[NodeName, float]
    answered_by: NodeName | None

    @property
    def is_right(self) -> bool:
        """True when the node's own channel answered."""
        return self.answered_by == self.node


class TraceEvent(Record):
    """Something that happened to the trace: gap, duplicate, reset, malformed, stale, clock_step, ...

    `count` is how many frames or lines it stands for.
    """

    utc_ns: int
    kind: str
    count: int = 1
    detail: str = ""


class SampleBlock(Record):
    """Samples as columns: `power_w[node][i]` belongs to `utc_ns[i]`; null where a channel sent no valid value."""

    former_names: ClassVar = {"register_j": "energy_register_j"}

    instrument: Instrument
    utc_ns: tuple[int, ...]
    power_w: dict[NodeName, tuple[float | None, ...]]
    events: tuple[TraceEvent, ...] = ()
    energy_register_j: dict[NodeName, float | None] | None = Field(
        default=None, description="joules by the meter's own register between first and last sample, uncalibrated"
    )


class WindowSummary(Record):
    """What the samples of a whole window have in common, however many pieces they came in."""

    instrument: Instrument = Field(description="with the uncertainty at the window's mean power")
    nodes: tuple[NodeName, ...] = Field(description="node of each channel, in channel order")
    n_samples: int = Field(ge=0, description="times in all pieces")
    events: tuple[TraceEvent, ...] = ()
    energy_register_j: dict[NodeName, float | None] | None = Field(
        default=None, description="joules by the meter's own register between first and last sample, uncalibrated"
    )


class SamplePiece(Record):
    """A piece of a window, its samples as in `SampleBlock`; times ascend strictly from piece to piece.

    `next` is the cursor of the next piece. The last piece has none, and says in `window` what describes the whole.
    """

    utc_ns: tuple[int, ...]
    power_w: dict[NodeName, tuple[float | None, ...]]
    next: str | None = None
    window: WindowSummary | None = None


class PowerAggregate(Record):
    """Power of one node since the previous live message, in watts."""

    min_w: float
    mean_w: float
    max_w: float


class LivePower(Record):
    """One live message."""

    utc_ns: int
    nodes: dict[NodeName, PowerAggregate]
    cluster_w: float
    emulated: bool
