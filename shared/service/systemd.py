"""What a daemon tells systemd: that it is ready, that it lives, that it stops (sd_notify(3)).

Without `NOTIFY_SOCKET` nothing happens at all, so the daemons run the same under any other supervisor. Not here: units
and their sandbox (systemd/), serving (shared.service.http).
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

_US_PER_S = 1_000_000


def is_being_started() -> bool:
    """Tell whether systemd still waits for this daemon's READY=1."""
    return "NOTIFY_SOCKET" in os.environ


def watchdog_interval_s(environment: Mapping[str, str]) -> float | None:
    """Return how often to ping, in s: half of what the unit allows (sd_watchdog_enabled(3)); None without watchdog."""
    usec = environment.get("WATCHDOG_USEC", "")
    pid = environment.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / _US_PER_S / 2


@asynccontextmanager
async def announced() -> AsyncIterator[None]:
    """Say READY=1 on entering and STOPPING=1 on leaving; in between ping from the event loop.

    A ping is one datagram from the loop itself, so a loop that hangs is a daemon that systemd restarts. The variables
    are taken out of the environment: an engine that outlives the daemon must not speak for it.
    """
    if "NOTIFY_SOCKET" not in os.environ:
        yield
        return
    # Imported here so that nothing is loaded where there is no systemd.
    from sdnotify import SystemdNotifier

    notifier = SystemdNotifier()
    interval_s = watchdog_interval_s(os.environ)
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        os.environ.pop(name, None)
    notifier.notify("READY=1")
    pings = asyncio.create_task(_ping(notifier.notify, interval_s)) if interval_s is not None else None
    try:
        yield
    finally:
        notifier.notify("STOPPING=1")
        if pings is not None:
            pings.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pings
        if notifier.socket is not None:
            notifier.socket.close()


async def _ping(notify: Callable[[str], None], interval_s: float) -> None:
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)
