"""What every source of readings promises.

A source runs until it is cancelled and emits what it receives, each item with the two host clocks at its arrival.
Emitting is synchronous and quick: whoever listens must not make a source wait. A source keeps trying by itself when
its device is away; what is wrong meanwhile is said by `problem`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from meter_bridge.protocol.frames import Frame, Hello, Malformed
from shared.kernel.clock import monotonic_ns, utc_ns
from shared.kernel.records import Record

LinkKind = Literal["connected", "disconnected", "overflow", "resync", "ended"]


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """Something that happened to the link itself."""

    kind: LinkKind
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One item and when it reached this host: monotonic and UTC nanoseconds, read together."""

    item: Frame | Hello | Malformed | LinkEvent
    mono_ns: int
    utc_ns: int


Emit = Callable[[Arrival], None]


class Source(ABC):
    """A place where readings come from; see tests/contract/test_meter_sources.py for all it promises.

    Attributes:
        channels: number of channels in every frame.
        goes_on: whether running it anew, after it died, goes on with the present (a recording would begin again).
    """

    goes_on: ClassVar[bool] = True

    def __init__(self, channels: int, problem: str) -> None:
        self.channels = channels
        self._problem: str | None = problem

    @property
    def problem(self) -> str | None:
        """What keeps readings from coming, in one sentence; None while all is well."""
        return self._problem

    @abstractmethod
    async def run(self, emit: Emit) -> None:
        """Emit a hello, then frames, until cancelled or (recorded sources) at the end."""


class SourceSettings(Record, ABC):
    """The table `[source]` of one kind of source, and how to make the source from it.

    Attributes:
        kind: what the table's key `kind` says; also the name of the module or entry point that brings the class.
    """

    kind: ClassVar[str]

    @property
    def offered_channels(self) -> int | None:
        """How many channels the source has by these settings; None where only the device knows."""
        return None

    @property
    def vouched(self) -> bool:
        """True where these settings vouch for an AC meter that never says hello."""
        return False

    @abstractmethod
    def make(self, channels: int) -> Source:
        """Return the source, not yet running; `channels` is the number of nodes that the bridge is told of."""


def stamp(item: Frame | Hello | Malformed | LinkEvent) -> Arrival:
    """Return `item` as having arrived now."""
    return Arrival(item, monotonic_ns(), utc_ns())
