"""Clocks of the lab: UTC nanoseconds for what is compared across machines, monotonic for durations."""

import time
from datetime import UTC, datetime

NS_PER_S = 1_000_000_000


def utc_ns() -> int:
    """Return the wall clock in nanoseconds since 1970-01-01 UTC."""
    return time.time_ns()


def monotonic_ns() -> int:
    """Return the monotonic clock in nanoseconds; its zero is arbitrary, it never jumps."""
    return time.monotonic_ns()


def iso_utc(at_utc_ns: int) -> str:
    """Return an ISO 8601 UTC timestamp with microseconds, for example `2026-01-31T12:00:00.000000Z`."""
    moment = datetime.fromtimestamp(at_utc_ns // NS_PER_S, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_utc_ns % NS_PER_S // 1000:06d}Z"
