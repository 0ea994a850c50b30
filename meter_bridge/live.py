"""The live feed: power since the last message as min, mean, max; slow clients lose the oldest messages.

Not here: HTTP and WebSocket (`app`). Calibration is applied before samples come here.
"""

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field

from shared.kernel.clock import NS_PER_S
from shared.kernel.records import NodeName
from shared.wire.meter_api import LivePower, PowerAggregate

MAX_HZ = 10.0
QUEUE_MESSAGES = 32


@dataclass(slots=True)
class _Sums:
    count: int = 0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.low = min(self.low, value)
        self.high = max(self.high, value)


@dataclass(slots=True, eq=False)
class Subscriber:
    """One client: its sums since its last message, and the messages it has not fetched yet."""

    period_ns: int
    nodes: tuple[NodeName, ...]
    dropped: int = 0
    _messages: deque[LivePower] = field(default_factory=deque)
    _ready: asyncio.Event = field(default_factory=asyncio.Event)
    _sums: list[_Sums] = field(default_factory=list)
    _due_ns: int = 0

    def add(self, utc_ns: int, mono_ns: int, power_w: tuple[float, ...], emulated: bool) -> None:
        """Take one sample (watts by channel, NaN for none)."""
        if not self._sums:
            self._sums = [_Sums() for _ in self.nodes]
        for sums, value in zip(self._sums, power_w, strict=True):
            if not math.isnan(value):
                sums.add(value)
        # A tenth of a period early is on time: samples of 10 Hz must not beat against a feed of 10 Hz.
        if mono_ns < self._due_ns - self.period_ns // 10:
            return
        self._due_ns = max(self._due_ns + self.period_ns, mono_ns + self.period_ns // 2)
        nodes = {
            node: PowerAggregate(min_w=sums.low, mean_w=sums.total / sums.count, max_w=sums.high)
            for node, sums in zip(self.nodes, self._sums, strict=True)
            if sums.count
        }
        self._sums = []
        if len(self._messages) >= QUEUE_MESSAGES:
            self._messages.popleft()
            self.dropped += 1
        self._messages.append(
            LivePower(
                utc_ns=utc_ns, nodes=nodes, cluster_w=sum(node.mean_w for node in nodes.values()), emulated=emulated
            )
        )
        self._ready.set()

    async def next(self) -> LivePower:
        """Wait for the next message."""
        while not self._messages:
            self._ready.clear()
            await self._ready.wait()
        return self._messages.popleft()


class LiveBroadcaster:
    """Spreads samples over the subscribers; costs nothing while there are none."""

    def __init__(self, nodes: tuple[NodeName, ...]) -> None:
        self._nodes = nodes
        self._subscribers: set[Subscriber] = set()

    def subscribe(self, hz: float) -> Subscriber:
        """Add a client that wants at most `hz` messages a second (capped at `MAX_HZ`)."""
        subscriber = Subscriber(round(NS_PER_S / min(hz, MAX_HZ)), self._nodes)
        self._subscribers.add(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Remove a client."""
        self._subscribers.discard(subscriber)

    @property
    def wanted(self) -> bool:
        """Tell whether anybody listens."""
        return bool(self._subscribers)

    def push(self, utc_ns: int, mono_ns: int, power_w: tuple[float, ...], *, emulated: bool) -> None:
        """Give one sample to every client."""
        for subscriber in self._subscribers:
            subscriber.add(utc_ns, mono_ns, power_w, emulated)
