"""How far something is: one type for everything that takes a while, and what is often done with it."""

import time
from collections.abc import Callable
from typing import Final

Progress = Callable[[float, str], None]
"""Called with how far it is, 0 to 1, and what is done now, in a few words."""
Count = Callable[[int, int], None]
"""Called with how many of how many are done: what a loop knows of itself; `counted` makes it from a `Progress`."""

_EVERY_S: Final = 0.1


def no_progress(fraction: float, message: str) -> None:
    """Tell nobody."""


def throttled(progress: Progress, every_s: float = _EVERY_S) -> Progress:
    """Return a progress that passes on the first report, then one each `every_s` seconds, and always the end."""
    due_s = 0.0

    def publish(fraction: float, message: str) -> None:
        nonlocal due_s
        now_s = time.monotonic()
        if now_s >= due_s or fraction >= 1:
            due_s = now_s + every_s
            progress(fraction, message)

    return publish


def counted(progress: Progress, unit: str) -> Count:
    """Return what to call with (done, total) of things called `unit`, for example bytes or tokens."""
    return lambda done, total: progress(done / max(total, 1), f"{done} of {total} {unit}")


def part(progress: Progress, begin: float, end: float, what: str = "") -> Progress:
    """Return the progress of a part of the work, which takes it from `begin` to `end` (0 to 1)."""

    def publish(fraction: float, message: str) -> None:
        progress(begin + fraction * (end - begin), f"{what}: {message}" if what and message else what or message)

    return publish
