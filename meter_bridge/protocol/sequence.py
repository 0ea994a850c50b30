"""What one frame means after the last: next, gap, duplicate, or a device that started anew.

Not here: the fit of the clocks (`timebase`), which also finds a device clock that was stepped forward.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from meter_bridge.protocol.frames import DEVICE_MS_MODULUS, SEQUENCE_MODULUS, Frame

Verdict = Literal["first", "next", "gap", "duplicate", "reset"]
_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, and for a gap how many frames are missing."""

    verdict: Verdict
    missing: int = 0


@dataclass(slots=True)
class SequenceTracker:
    """Remembers the last frames of a stream; counters wrap at 2^32 without being taken for resets."""

    last_seq: int | None = None
    last_ms: int | None = None
    _recent: deque[tuple[int, int | None]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def judge(self, frame: Frame) -> Judgement:
        """Return what `frame` means; only a duplicate leaves the memory as it was."""
        judgement = self._judge(frame)
        if judgement.verdict == "reset":
            self._recent.clear()
        if judgement.verdict != "duplicate":
            self.last_seq, self.last_ms = frame.seq, frame.device_ms
            if frame.seq is not None:
                self._recent.append((frame.seq, frame.device_ms))
        return judgement

    def _judge(self, frame: Frame) -> Judgement:
        if self.last_seq is None and self.last_ms is None:
            return Judgement("first")
        if frame.seq is not None and (frame.seq, frame.device_ms) in self._recent:
            return Judgement("duplicate")
        step_ms = _step(frame.device_ms, self.last_ms, DEVICE_MS_MODULUS)
        step = _step(frame.seq, self.last_seq, SEQUENCE_MODULUS)
        if (step_ms is not None and step_ms < 0) or (step is not None and step <= 0):
            # Not a repeat, and yet a clock or a counter that went back (or stands still): it started anew.
            return Judgement("reset")
        return Judgement("gap", step - 1) if step is not None and step > 1 else Judgement("next")


def _step(new: int | None, old: int | None, modulus: int) -> int | None:
    """Return new - old as the shortest way round the circle."""
    if new is None or old is None:
        return None
    step = (new - old) % modulus
    return step - modulus if step > modulus // 2 else step
