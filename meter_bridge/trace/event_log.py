"""Counts what goes wrong and records it with its time, without letting a noisy line fill the disk.

Up to `SINGLE_PER_S` events of one kind a second are recorded one by one; the rest of that second becomes one event
whose `count` says how many it stands for. Nothing is dropped without being counted.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from meter_bridge.trace.records import EventKind, StoredEvent
from shared.kernel.clock import NS_PER_S

SINGLE_PER_S = 20
_DETAIL_CHARS = 300


@dataclass(slots=True)
class _Second:
    number: int
    written: int = 0
    swallowed: int = 0
    last: StoredEvent | None = None


class EventLog:
    """Hands events to `write` and keeps totals by kind."""

    def __init__(self, write: Callable[[StoredEvent], None]) -> None:
        self._write = write
        self._seconds: dict[str, _Second] = {}
        self.totals: Counter[str] = Counter()

    def record(self, kind: EventKind, utc_ns: int, mono_ns: int, *, count: int = 1, detail: str = "") -> None:
        """Count and record one event."""
        self.totals[kind] += count
        event = StoredEvent(utc_ns, mono_ns, kind, count, detail[:_DETAIL_CHARS])
        number = mono_ns // NS_PER_S
        second = self._seconds.get(kind)
        if second is None or second.number != number:
            self._finish(kind)
            second = self._seconds[kind] = _Second(number)
        if second.written < SINGLE_PER_S:
            second.written += 1
            self._write(event)
        else:
            second.swallowed += count
            second.last = event

    def flush(self) -> None:
        """Record what was only counted so far."""
        for kind in list(self._seconds):
            self._finish(kind)

    def _finish(self, kind: str) -> None:
        second = self._seconds.get(kind)
        if second is not None and second.last is not None and second.swallowed:
            last = second.last
            self._write(
                StoredEvent(last.utc_ns, last.mono_ns, last.kind, second.swallowed, f"counted together: {last.detail}")
            )
            second.swallowed = 0
            second.last = None
