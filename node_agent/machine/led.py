"""Blinks the board's status LED, so that a person in front of a stack of boards finds this one.

The kernel blinks (trigger `timer`, half a second on and off); the LED gets its own trigger back at the end.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.kernel.errors import ConfigurationError, InfrastructureError
from shared.wire.node_jobs.host import BlinkParams, BlinkResult

LEDS = Path("/sys/class/leds")
STATUS_LEDS = ("ACT", "led0")
"""A Pi's green LED: by the name of the present kernel, and by that of older ones."""


async def blink(params: BlinkParams, root: Path = LEDS) -> BlinkResult:
    """Blink for the asked time, also when it is cancelled leaving the LED as it was.

    Raises:
        ConfigurationError: this machine has no status LED.
        InfrastructureError: the kernel refuses, normally for want of rights.
    """
    led = next((path for name in STATUS_LEDS if (path := root / name / "trigger").is_file()), None)
    if led is None:
        raise ConfigurationError(
            "not available here: this machine has no status LED that a program may blink", where=str(root),
            hint="identify it by its channel of the meter instead",
        )  # fmt: skip
    with _triggered(led, "timer"):
        await asyncio.sleep(params.seconds)
    return BlinkResult(led=led.parent.name)


@contextmanager
def _triggered(trigger: Path, name: str) -> Iterator[None]:
    try:
        chosen = re.search(r"\[(.+?)\]", trigger.read_text())  # "none [mmc0] timer heartbeat"
        before = chosen.group(1) if chosen else "none"
        trigger.write_text(name)
    except OSError as error:
        raise InfrastructureError(
            f"the LED cannot be set: {error.strerror}", where=str(trigger),
            hint="the agent's user needs the right to write it; see docs/operations.md",
        ) from error  # fmt: skip
    try:
        yield
    finally:
        trigger.write_text(before)
