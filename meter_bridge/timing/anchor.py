"""Ties the host's monotonic clock to UTC, and notices when UTC was stepped.

The monotonic clock runs at the rate of UTC (both are slewed together) but is never stepped. One anchor, UTC minus
monotonic, therefore holds until somebody steps the clock; then a new anchor begins. What was stamped before keeps the
old one, so a step never bends a trace: it is one recorded event between two straight pieces.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared.kernel.clock import monotonic_ns, utc_ns

STEP_NS = 5_000_000
"""Smaller differences are the noise of reading two clocks one after the other."""
_SURE_NS = 200_000
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Anchor:
    """UTC minus monotonic in nanoseconds, for one boot of the host."""

    boot_id: str
    utc_minus_mono_ns: int

    def utc(self, mono_ns: int) -> int:
        """Return UTC nanoseconds of a monotonic time."""
        return mono_ns + self.utc_minus_mono_ns


def measure() -> tuple[int, int]:
    """Return (UTC minus monotonic, half width of the reading) in nanoseconds, the narrowest of a few readings."""
    best = (0, 2**62)
    for _ in range(_TRIES):
        before = monotonic_ns()
        utc = utc_ns()
        after = monotonic_ns()
        if after - before < best[1]:
            best = (utc - (before + after) // 2, after - before)
        if best[1] < _SURE_NS // 10:
            break
    return best


def boot_id() -> str:
    """Return the id of this boot of the host: monotonic times of different boots are not comparable."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class AnchorKeeper:
    """Holds the anchor in force; `check` is cheap enough for every line.

    `reading` returns (UTC minus monotonic, width of the reading) in nanoseconds, as `measure` does.
    """

    def __init__(self, reading: Callable[[], tuple[int, int]] = measure) -> None:
        self._reading = reading
        self.current = Anchor(boot_id(), reading()[0])

    def check(self, arrival_mono_ns: int, arrival_utc_ns: int) -> int | None:
        """Return how far UTC was stepped (nanoseconds) if it was, and begin a new anchor; None otherwise."""
        if abs(arrival_utc_ns - arrival_mono_ns - self.current.utc_minus_mono_ns) < STEP_NS:
            return None
        # The pair may have been torn apart by the scheduler: only a sure reading moves the anchor.
        offset, width = self._reading()
        step = offset - self.current.utc_minus_mono_ns
        if width > _SURE_NS or abs(step) < STEP_NS:
            return None
        self.current = Anchor(self.current.boot_id, offset)
        return step
