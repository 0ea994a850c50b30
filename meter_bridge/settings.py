"""Settings of the bridge: which source, which channel is which node, what is known of the instrument."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from meter_bridge.instrument.description import InstrumentSettings
from shared.kernel.records import NodeName, Record
from shared.kernel.settings import DaemonSettings

Dialect = Literal["shelly1", "shelly2", "tasmota"]


class SerialSettings(Record):
    """A meter on a serial port."""

    kind: Literal["serial"] = "serial"
    device: Path = Field(description="a stable name: /dev/serial/by-id/... or the emulator's link")
    baud: int = Field(default=115_200, ge=1200, le=4_000_000)
    accept_without_hello: bool = Field(
        default=False, description="for meters that never say hello: label them `ac_meter` on the user's word"
    )


class ReplaySettings(Record):
    """A stored trace."""

    kind: Literal["replay"]
    path: Path
    speed: float = Field(default=1.0, gt=0, le=200)


class RaplSettings(Record):
    """Linux RAPL domains, one a channel."""

    kind: Literal["rapl"]
    domains: tuple[str, ...] = ("intel-rapl:0",)
    rate_hz: float = Field(default=10.0, gt=0, le=50)


class NvmlSettings(Record):
    """NVIDIA boards by index, one a channel."""

    kind: Literal["nvml"]
    boards: tuple[int, ...] = (0,)
    rate_hz: float = Field(default=10.0, gt=0, le=50)


class PmicSettings(Record):
    """The Raspberry Pi 5's power chip."""

    kind: Literal["pmic"]
    rate_hz: float = Field(default=1.0, gt=0, le=5)


class PlugAddress(Record):
    """One plug, one channel."""

    url: str = Field(pattern=r"^https?://[^\s/]+$")
    dialect: Dialect


class PlugSettings(Record):
    """Smart plugs, one a channel."""

    kind: Literal["plugs"]
    plugs: tuple[PlugAddress, ...] = Field(min_length=1)
    rate_hz: float = Field(default=1.0, gt=0, le=5)


class PtdaemonSettings(Record):
    """The log of a running SPEC PTDaemon; one channel."""

    kind: Literal["ptdaemon"]
    path: Path


class CsvSettings(Record):
    """A growing CSV file with a column a channel."""

    kind: Literal["csv"]
    path: Path
    time_column: str
    power_columns: tuple[str, ...] = Field(min_length=1)
    rate_hz: float = Field(default=1.0, gt=0, le=100, description="how often a line is expected")
    measurement_point: str = Field(min_length=1, description="what that log measured: it cannot be asked")


SourceSettings = (
    SerialSettings | ReplaySettings | RaplSettings | NvmlSettings | PmicSettings | PlugSettings | PtdaemonSettings
    | CsvSettings
)  # fmt: skip


class BridgeSettings(DaemonSettings):
    """The whole TOML file."""

    channels: tuple[NodeName, ...] = Field(min_length=1, max_length=64, description="node of each channel, in order")
    source: Annotated[SourceSettings, Field(discriminator="kind")]
    instrument: InstrumentSettings = InstrumentSettings()

    @field_validator("source", mode="before")
    @classmethod
    def _serial_by_default(cls, value: Any) -> Any:
        return {"kind": "serial", **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.channels)) != len(self.channels):
            raise ValueError("channels: every channel needs its own node")
        offered = _channels_of(self.source)
        if offered is not None and offered != len(self.channels):
            raise ValueError(f"channels: the source has {offered} channels, {len(self.channels)} nodes are named")
        return self

    @property
    def vouched(self) -> bool:
        """True where the settings vouch for a meter that never says hello."""
        return isinstance(self.source, SerialSettings) and self.source.accept_without_hello


def _channels_of(source: SourceSettings) -> int | None:
    """Return how many channels the source has by its settings; None where only the device knows."""
    match source:
        case RaplSettings():
            return len(source.domains)
        case NvmlSettings():
            return len(source.boards)
        case PlugSettings():
            return len(source.plugs)
        case CsvSettings():
            return len(source.power_columns)
        case PmicSettings() | PtdaemonSettings():
            return 1
        case _:
            return None
