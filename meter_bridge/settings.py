"""Settings of the bridge: which source, which channel is which node, what is known of the instrument.

Not here: the table `[source]`, which each source's own module reads (`sources`).
"""

from typing import Annotated, Self

from pydantic import Field, PlainValidator, model_validator

from meter_bridge.instrument.description import InstrumentSettings
from meter_bridge.sources.base import SourceSettings
from meter_bridge.sources.registry import read_source
from shared.kernel.records import NodeName
from shared.kernel.settings import DaemonSettings


class BridgeSettings(DaemonSettings):
    """The whole TOML file."""

    channels: tuple[NodeName, ...] = Field(min_length=1, max_length=64, description="node of each channel, in order")
    source: Annotated[SourceSettings, PlainValidator(read_source)] = Field(
        description="what is read; `kind` names one of the sources below"
    )
    instrument: InstrumentSettings = Field(default=InstrumentSettings(), description="what is known of the instrument")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.channels)) != len(self.channels):
            raise ValueError("channels: every channel needs its own node")
        offered = self.source.offered_channels
        if offered is not None and offered != len(self.channels):
            raise ValueError(f"channels: the source has {offered} channels, {len(self.channels)} nodes are named")
        return self
