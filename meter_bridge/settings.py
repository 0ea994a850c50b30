"""Settings of the bridge: which source, which channel is which node, what is known of the instrument."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from shared.records import NodeName, Record
from shared.settings import DaemonSettings


class SerialSettings(Record):
    """A meter on a serial port."""

    kind: Literal["serial"] = "serial"
    device: Path = Field(description="a stable name: /dev/serial/by-id/... or the emulator's link")
    baud: int = Field(default=115_200, ge=1200, le=4_000_000)
    accept_without_hello: bool = Field(
        default=False, description="for meters that never say hello: label them `ac_meter` on the user's word"
    )



class InstrumentSettings(Record):
    """What is known of the instrument and cannot be asked over the wire."""

    name: str = "epi-meter"
    measurement_point: str = "AC inlet of each node"
    relative_uncertainty: float | None = Field(
        default=None, ge=0, le=1, description="standard uncertainty of power as the maker states it; null: unknown"
    )


class BridgeSettings(DaemonSettings):
    """The whole TOML file."""

    channels: tuple[NodeName, ...] = Field(min_length=1, max_length=64, description="node of each channel, in order")
    source: SerialSettings
    instrument: InstrumentSettings = InstrumentSettings()

    @model_validator(mode="after")
    def _nodes_differ(self) -> Self:
        if len(set(self.channels)) != len(self.channels):
            raise ValueError("channels: every channel needs its own node")
        return self
