"""The status LED blinks by the kernel's own trigger and is as before afterwards, whatever happens meanwhile."""

import asyncio
from pathlib import Path

import pytest

from node_agent.machine.led import blink
from shared.kernel.errors import ConfigurationError, InfrastructureError
from shared.wire.node_jobs.host import BlinkParams


def trigger_of(root: Path, led: str) -> Path:
    """Make a `trigger` file as the kernel shows it: the one in force stands in brackets."""
    path = root / led / "trigger"
    path.parent.mkdir(parents=True)
    path.write_text("none timer [mmc0] heartbeat")
    return path


async def test_it_blinks_and_gets_its_own_trigger_back(tmp_path: Path) -> None:
    trigger = trigger_of(tmp_path, "ACT")
    blinking = asyncio.create_task(blink(BlinkParams(seconds=1), tmp_path))
    await asyncio.sleep(0.1)
    assert trigger.read_text() == "timer"
    assert (await blinking).led == "ACT"
    assert trigger.read_text() == "mmc0"


async def test_a_cancelled_job_leaves_the_led_as_it_was(tmp_path: Path) -> None:
    trigger = trigger_of(tmp_path, "led0")
    blinking = asyncio.create_task(blink(BlinkParams(seconds=60), tmp_path))
    await asyncio.sleep(0.1)
    blinking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await blinking
    assert trigger.read_text() == "mmc0"


async def test_a_machine_without_a_led_and_one_that_refuses_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not available here") as missing:
        await blink(BlinkParams(), tmp_path)
    assert "channel" in missing.value.hint
    (tmp_path / "ACT").mkdir()
    (tmp_path / "ACT" / "trigger").symlink_to("/proc/version")
    with pytest.raises(InfrastructureError, match="cannot be set"):
        await blink(BlinkParams(), tmp_path)
