"""Linux RAPL: the CPU's own estimate of its energy, from /sys/class/powercap. Not an AC meter.

Counters in microjoules, wrapping at `max_energy_range_uj` (Documentation/power/powercap in the kernel).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from meter_bridge.protocol.frames import Hello
from meter_bridge.sources.base import Source, SourceSettings
from meter_bridge.sources.polled import PolledSource, Reading
from shared.kernel.clock import monotonic_ns
from shared.kernel.errors import InfrastructureError

POWERCAP = Path("/sys/class/powercap")


@dataclass(slots=True)
class _Domain:
    path: Path
    range_uj: int
    last_uj: int


class RaplReader:
    """Reads the domains given by name (`intel-rapl:0`, ...), one channel each."""

    def __init__(self, domains: tuple[str, ...], rate_hz: float, root: Path) -> None:
        self._names = domains
        self._rate_hz = rate_hz
        self._root = root
        self._domains: list[_Domain] = []
        self._last_ns = 0

    @property
    def hello(self) -> Hello:
        """What it is."""
        return Hello(
            "rapl", "rapl", len(self._names), self._rate_hz,
            measurement_point="CPU domains by RAPL (a model in the chip), not the AC inlet",
        )  # fmt: skip

    async def open(self) -> None:
        """Find the domains and take the first counts."""
        self._domains = []
        for name in self._names:
            folder = self._root / name
            try:
                self._domains.append(_Domain(folder / "energy_uj", _number(folder / "max_energy_range_uj"), 0))
            except OSError as error:
                raise InfrastructureError(
                    f"RAPL domain cannot be read: {error.strerror}", where=str(folder),
                    hint="energy_uj is for root only since Linux 5.10; domains: " + ", ".join(self._known()),
                ) from error  # fmt: skip
        self._count()

    async def read(self) -> Reading | None:
        """Return the mean power since the last reading."""
        before_ns = self._last_ns
        joules = self._count()
        seconds = (self._last_ns - before_ns) / 1e9
        if seconds < 0.2 / self._rate_hz:
            return None
        return Reading(tuple(value / seconds for value in joules), self._last_ns)

    async def close(self) -> None:
        """Nothing is held open."""

    def _count(self) -> list[float]:
        joules = []
        self._last_ns = monotonic_ns()
        for domain in self._domains:
            try:
                now_uj = _number(domain.path)
            except OSError as error:
                raise InfrastructureError(f"RAPL failed: {error.strerror}", where=str(domain.path)) from error
            used_uj = now_uj - domain.last_uj
            joules.append((used_uj + domain.range_uj if used_uj < 0 else used_uj) / 1e6)
            domain.last_uj = now_uj
        return joules

    def _known(self) -> list[str]:
        return sorted(path.name for path in self._root.glob("*:*")) or ["none on this machine"]


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


class RaplSettings(SourceSettings):
    """Linux RAPL domains, one a channel."""

    kind: ClassVar[str] = "rapl"

    domains: tuple[str, ...] = ("intel-rapl:0",)
    rate_hz: float = Field(default=10.0, ge=0.01, le=50)

    @property
    def offered_channels(self) -> int:
        """One a domain."""
        return len(self.domains)

    def make(self, channels: int) -> Source:
        """Return the source."""
        return PolledSource(RaplReader(self.domains, self.rate_hz, POWERCAP))


SOURCE = RaplSettings
