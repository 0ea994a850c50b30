"""The live feed: power since the last message as min, mean, max of each node.

Not here: HTTP and WebSocket (`app`), queues of slow clients (`shared.service.broadcaster`). Calibration is applied
before samples come here.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from shared.kernel.clock import NS_PER_S
from shared.kernel.records import NodeName
from shared.wire.meter_api import LivePower, PowerAggregate

MAX_HZ = 10.0
QUEUE_MESSAGES = 32


class LiveSample(NamedTuple):
    """One sample: both clocks, and watts by channel, NaN for none."""

    utc_ns: int
    mono_ns: int
    power_w: tuple[float, ...]
    emulated: bool


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
class Aggregator:
    """What one client has not been told yet, and when its next message is due."""

    nodes: tuple[NodeName, ...]
    hz: float
    _sums: list[_Sums] = field(default_factory=list)
    _due_ns: int = 0

    def __call__(self, sample: LiveSample) -> LivePower | None:
        """Take one sample; return the message that is due with it, None while none is."""
        if not self._sums:
            self._sums = [_Sums() for _ in self.nodes]
        for sums, value in zip(self._sums, sample.power_w, strict=True):
            if not math.isnan(value):
                sums.add(value)
        period_ns = round(NS_PER_S / min(self.hz, MAX_HZ))
        # A tenth of a period early is on time: samples of 10 Hz must not beat against a feed of 10 Hz.
        if sample.mono_ns < self._due_ns - period_ns // 10:
            return None
        self._due_ns = max(self._due_ns + period_ns, sample.mono_ns + period_ns // 2)
        nodes = {
            node: PowerAggregate(min_w=sums.low, mean_w=sums.total / sums.count, max_w=sums.high)
            for node, sums in zip(self.nodes, self._sums, strict=True)
            if sums.count
        }
        self._sums = []
        return LivePower(
            utc_ns=sample.utc_ns, nodes=nodes, cluster_w=sum(node.mean_w for node in nodes.values()),
            emulated=sample.emulated,
        )  # fmt: skip
