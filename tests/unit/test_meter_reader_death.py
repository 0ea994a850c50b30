"""The reader of the meter dies of a defect: the bridge says so, marks the gap, and reads again."""

import asyncio
from pathlib import Path

from meter_bridge.bridge import Bridge
from meter_bridge.protocol.frames import Hello
from meter_bridge.settings import BridgeSettings
from meter_bridge.sources.base import Emit, LinkEvent, Source, stamp
from shared.kernel.clock import utc_ns
from shared.kernel.settings import validate_settings


class SourceWithADefect(Source):
    """Dies in its first run, in the middle of a connection."""

    def __init__(self) -> None:
        super().__init__(1, "not begun")
        self.runs = 0

    async def run(self, emit: Emit) -> None:
        self.runs += 1
        emit(stamp(LinkEvent("connected", "test")))
        self._problem = None
        emit(stamp(Hello("meter", "test", 1, 10.0, measurement_point="a test")))
        if self.runs == 1:
            raise OverflowError("int too large to convert to float")
        await asyncio.Event().wait()


async def test_a_reader_that_dies_is_told_and_begins_anew(tmp_path: Path) -> None:
    settings = validate_settings(
        BridgeSettings,
        {"name": "meter", "port": 1, "state_dir": tmp_path, "channels": ["node1"], "source": {"device": "/dev/none"}},
        where="test",
    )
    bridge = Bridge(settings)
    bridge.source = source = SourceWithADefect()
    begin = utc_ns()
    async with bridge.running(), asyncio.timeout(20):
        while bridge.health.status != "failing":
            await asyncio.sleep(0.01)
        assert "the reader of the meter died and starts again in 1 s: OverflowError" in bridge.status().problems[0]
        assert not bridge.status().connected
        while source.runs < 2 or not bridge.status().connected:
            await asyncio.sleep(0.05)
        kinds = [event.kind for event in await bridge.events(begin, utc_ns() + 1)]
    assert [kind for kind in kinds if "connected" in kind] == ["connected", "disconnected", "connected"]
