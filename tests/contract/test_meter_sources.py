"""Every registered kind of source, made from its table of the settings file, against the same promises.

A new kind needs its rig here. Hardware this machine lacks is replaced at its outermost edge only: a folder in the shape
of sysfs, a small C library with the three NVML functions, a script named vcgencmd, an HTTP server with the plugs'
documented answers.
"""

import asyncio
import csv
import fcntl
import http.server
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from meter_bridge.protocol.frames import Frame, Hello
from meter_bridge.settings import BridgeSettings
from meter_bridge.sources import nvml, pmic, rapl
from meter_bridge.sources.base import Arrival, LinkEvent, Source
from meter_bridge.sources.plugs import PlugAddress, PlugReader
from meter_bridge.sources.registry import SOURCES
from meter_bridge.sources.serial import SerialSource
from meter_bridge.trace.recording import RecordingHead, RecordingWriter
from shared.kernel.errors import ConfigurationError, InfrastructureError
from shared.kernel.settings import validate_settings

TIOCGEXCL = 0x80045440
"""Of Linux: is the terminal locked? Python's `termios` does not name it."""


def settings(channels: int, **table: object) -> BridgeSettings:
    nodes = [f"node{number}" for number in range(1, channels + 1)]
    whole = {"name": "meter", "port": 8801, "state_dir": "/nowhere", "channels": nodes, "source": table}
    return validate_settings(BridgeSettings, whole, where="bridge.toml")


def made(channels: int, **table: object) -> Source:
    """Return the source as the bridge makes it."""
    return settings(channels, **table).source.make(channels)


@dataclass
class Rig:
    """A source whose device is there, what it must show in watts and say it is, and one with its device away."""

    source: Source
    watts: tuple[float, ...]
    away: Source
    said: str
    tolerance: float = 0.02


@asynccontextmanager
async def repeating(step: Callable[[], None], every_s: float) -> AsyncIterator[None]:
    async def loop() -> None:
        while True:
            step()
            await asyncio.sleep(every_s)

    task = asyncio.create_task(loop())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def serial_rig(tmp: Path) -> AsyncIterator[Rig]:
    link = tmp / "meter"
    arguments = ["--link", str(link), "--rate", "20", "--noise-w", "0", "--channel", "a=schedule:1x5"]
    with subprocess.Popen(
        [sys.executable, "-m", "meter_bridge.cli", "emulate", *arguments, "--channel", "b=schedule:1x8"],
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        away = made(2, device=str(tmp / "nothing"))
        yield Rig(made(2, kind="serial", device=str(link)), (5.0, 8.0), away, "emulated")
        process.terminate()
        process.communicate(timeout=10)


@asynccontextmanager
async def rapl_rig(tmp: Path) -> AsyncIterator[Rig]:
    begun = time.monotonic()
    for name in ("intel-rapl:0", "intel-rapl:1"):
        (tmp / name).mkdir()
        (tmp / name / "max_energy_range_uj").write_text("20000000\n")

    def count() -> None:
        # 5 W and 8 W, in counters that wrap soon after the start.
        for watts, name in ((5, "intel-rapl:0"), (8, "intel-rapl:1")):
            fresh = tmp / "fresh"
            fresh.write_text(f"{int(18e6 + (time.monotonic() - begun) * watts * 1e6) % 20_000_000}\n")
            fresh.replace(tmp / name / "energy_uj")

    async with repeating(count, 0.0005):
        domains = ["intel-rapl:0", "intel-rapl:1"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rapl, "POWERCAP", tmp)
            source = made(2, kind="rapl", domains=domains, rate_hz=20)
            away = made(2, kind="rapl", domains=[*domains[:1], "intel-rapl:7"], rate_hz=20)
        yield Rig(source, (5.0, 8.0), away, "rapl", tolerance=0.3)


_NVML = """
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 6 ? "Not Found" : "Unknown Error"; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index > 1) return 6;
    *device = (void *)(long)(index + 1);
    return 0;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
    *milliwatts = (long)device == 1 ? 5000 : 8000;
    return 0;
}
"""


@asynccontextmanager
async def nvml_rig(tmp: Path) -> AsyncIterator[Rig]:
    (tmp / "nvml.c").write_text(_NVML)
    library = tmp / "libnvidia-ml.so.1"
    compiler = shutil.which("cc") or shutil.which("c++")
    assert compiler, "the project needs a C compiler: apt install g++"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp / "nvml.c"], check=True, timeout=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvml, "LIBRARY", str(library))
        source = made(2, kind="nvml", boards=[0, 1], rate_hz=20)
        away = made(2, kind="nvml", boards=[0, 7], rate_hz=20)
    yield Rig(source, (5.0, 8.0), away, "nvml")


@asynccontextmanager
async def pmic_rig(tmp: Path) -> AsyncIterator[Rig]:
    script = tmp / "vcgencmd"
    # The shape of the output on a Pi 5: rails with both, one with voltage only.
    script.write_text(
        "#!/bin/sh\necho ' 3V3_SYS_A current(1)=0.50000000A'\necho ' VDD_CORE_A current(7)=3.00000000A'\n"
        "echo ' 3V3_SYS_V volt(9)=4.00000000V'\necho ' VDD_CORE_V volt(15)=1.00000000V'\n"
        "echo ' EXT5V_V volt(24)=5.15000000V'\n"
    )
    script.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pmic, "COMMAND", (str(script),))
        source = made(1, kind="pmic", rate_hz=5)
        patch.setattr(pmic, "COMMAND", (str(tmp / "no"),))
        away = made(1, kind="pmic")
    yield Rig(source, (5.0,), away, "pmic")


@contextmanager
def plug_server() -> Iterator[str]:
    answers = {
        "/meter/0": {"power": 5.0, "is_valid": True, "timestamp": 1, "counters": [0, 0, 0], "total": 9},
        "/rpc/Switch.GetStatus?id=0": {"id": 0, "apower": 8.0, "voltage": 230.1, "aenergy": {"total": 1}},
        "/cm?cmnd=Status%208": {"StatusSNS": {"Time": "2026-01-01T00:00:00", "ENERGY": {"Power": 11, "Voltage": 230}}},
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answers[self.path]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@asynccontextmanager
async def plugs_rig(tmp: Path) -> AsyncIterator[Rig]:
    with plug_server() as url:
        plugs = [{"url": url, "dialect": name} for name in ("shelly1", "shelly2", "tasmota")]
        away = made(3, kind="plugs", plugs=[{"url": "http://127.0.0.1:9", "dialect": "tasmota"}] * 3)
        yield Rig(made(3, kind="plugs", plugs=plugs, rate_hz=5), (5.0, 8.0, 11.0), away, "smart_plug")


async def test_the_password_of_a_plug_is_not_told() -> None:
    reader = PlugReader((PlugAddress(url="http://admin:p4ssw0rd@127.0.0.1:9", dialect="tasmota"),), 1.0)
    await reader.open()
    with pytest.raises(InfrastructureError, match=r"127\.0\.0\.1:9") as told:
        await reader.read()
    await reader.close()
    assert "p4ssw0rd" not in f"{told.value} {told.value.to_payload()}"


@asynccontextmanager
async def ptdaemon_rig(tmp: Path) -> AsyncIterator[Rig]:
    path, number = tmp / "spl.txt", 0

    def grow() -> None:
        nonlocal number
        number += 1
        stamp = f"07-21-2026 13:57:{number // 20 % 60:02d}.{number % 20 * 50:03d}"
        with path.open("a") as file:
            file.write(f"Time,{stamp},Watts,5.000000,Volts,229.4,Amps,0.025,PF,0.91,Mark,run_1\n")

    path.write_text("Time,07-21-2026 13:00:00.000,Watts,99,Volts,229,Amps,1,PF,1,Mark,old\n")
    away = made(1, kind="ptdaemon", path=str(tmp / "none"))
    async with repeating(grow, 0.05):
        yield Rig(made(1, kind="ptdaemon", path=str(path)), (5.0,), away, "ptdaemon")


@asynccontextmanager
async def csv_rig(tmp: Path) -> AsyncIterator[Rig]:
    path, number = tmp / "log.csv", 0

    def grow() -> None:
        nonlocal number
        number += 1
        with path.open("a", newline="") as file:
            csv.writer(file).writerow([f"{1_700_000_000 + number / 20:.3f}", "lab", 8.0, 5.0])

    path.write_text("time,place,b,a\n1600000000,old,1,1\n")
    table = {"kind": "csv", "time_column": "time", "power_columns": ["a", "b"], "measurement_point": "a bench"}
    async with repeating(grow, 0.05):
        source = made(2, path=str(path), rate_hz=20, **table)
        yield Rig(source, (5.0, 8.0), made(2, path=str(tmp / "none"), **table), "csv")


@asynccontextmanager
async def replay_rig(tmp: Path) -> AsyncIterator[Rig]:
    path = tmp / "rec.gz"
    with RecordingWriter(path, RecordingHead(("a", "b"), 20.0, "epi-emulator", emulated=True)) as recording:
        for number in range(400):
            recording.add(Frame((5.0, 8.0), seq=number, device_ms=number * 50), 7 + number * 50_000_000)
    away = made(2, kind="replay", path=str(tmp / "none"))
    yield Rig(made(2, kind="replay", path=str(path)), (5.0, 8.0), away, "replay")


RIGS = {
    "serial": serial_rig, "rapl": rapl_rig, "nvml": nvml_rig, "pmic": pmic_rig, "plugs": plugs_rig,
    "ptdaemon": ptdaemon_rig, "csv": csv_rig, "replay": replay_rig,
}  # fmt: skip


async def collect(source: Source, done: Callable[[list[Arrival]], bool], limit_s: float) -> list[Arrival]:
    """Run a source until `done`, then cancel it; it must end at once."""
    arrivals: list[Arrival] = []
    task = asyncio.create_task(source.run(arrivals.append))
    ends = time.monotonic() + limit_s
    while not done(arrivals) and not task.done() and time.monotonic() < ends:
        await asyncio.sleep(0.02)
    task.cancel()
    async with asyncio.timeout(1):
        with suppress(asyncio.CancelledError):
            await task
    return arrivals


def frames_of(arrivals: list[Arrival]) -> list[Frame]:
    return [arrival.item for arrival in arrivals if isinstance(arrival.item, Frame)]


@pytest.mark.parametrize("name", SOURCES.names())
async def test_a_source_keeps_its_promises(name: str, tmp_path: Path) -> None:
    async with RIGS[name](tmp_path) as rig:
        arrivals = await collect(rig.source, lambda found: len(frames_of(found)) >= 8, 10)
        assert rig.source.problem is None
    frames = frames_of(arrivals)
    assert len(frames) >= 8
    # It says that it is connected, then what it is, before its first reading.
    kinds = [type(arrival.item) for arrival in arrivals]
    assert isinstance(arrivals[0].item, LinkEvent)
    assert arrivals[0].item.kind == "connected"
    assert kinds.index(Hello) < kinds.index(Frame)
    hello = next(arrival.item for arrival in arrivals if isinstance(arrival.item, Hello))
    assert hello.kind == rig.said
    assert hello.channels == rig.source.channels == len(rig.watts)
    assert hello.emulated == (name in ("serial", "replay"))
    # Counters, device clocks and arrivals go forward.
    for earlier, later in itertools.pairwise(frames):
        assert earlier.seq is not None
        assert later.seq == earlier.seq + 1
        assert earlier.device_ms is not None
        assert later.device_ms is not None
        assert later.device_ms > earlier.device_ms
    times = [arrival.mono_ns for arrival in arrivals]
    assert times == sorted(times)
    # The watts are those of the device.
    means = [sum(column) / len(frames) for column in zip(*(frame.power_w for frame in frames), strict=True)]
    assert means == pytest.approx(rig.watts, abs=rig.tolerance)


@pytest.mark.parametrize("name", SOURCES.names())
async def test_an_absent_device_is_one_sentence(name: str, tmp_path: Path) -> None:
    async with RIGS[name](tmp_path) as rig:
        arrivals = await collect(rig.away, lambda _: False, 0.6)
        assert frames_of(arrivals) == []
        assert rig.away.problem
        assert "\n" not in rig.away.problem
        assert len(rig.away.problem) < 300


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"kind": "toaster"}, "unknown kind of meter source 'toaster' (known: csv, nvml, plugs,"),
        ({"kind": "base"}, "unknown kind of meter source 'base'"),
        ({"kind": 7}, "source: kind: the name of a kind of source is needed"),
        ({}, "source.device: Field required"),
        ({"device": "/dev/x", "baud": 3}, "source.baud: Input should be greater than or equal to 1200"),
        ({"device": "/dev/x", "speed": 3}, "source.speed: Extra inputs are not permitted"),
        ({"kind": "plugs", "plugs": [{"url": "ftp://x", "dialect": "tasmota"}]}, "source.plugs.0.url: String should"),
        ({"kind": "rapl", "domains": ["intel-rapl:0"]}, "channels: the source has 1 channels, 2 nodes are named"),
    ],
)
def test_a_wrong_table_is_refused_by_its_field(table: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        settings(2, **table)
    assert said in str(refused.value)


def test_only_a_serial_meter_can_be_vouched_for() -> None:
    assert settings(2, device="/dev/x", accept_without_hello=True).source.vouched
    assert not settings(2, device="/dev/x").source.vouched
    assert not any(source.model_construct().vouched for source in SOURCES.all() if source.kind != "serial")


def test_finding_a_kind_imports_no_other() -> None:
    code = (
        "import sys; from meter_bridge.sources.registry import SOURCES; SOURCES.get('rapl'); "
        "sys.exit(any(name in sys.modules for name in ('serial', 'httpx', 'meter_bridge.sources.plugs')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


async def test_the_port_is_exclusive(tmp_path: Path) -> None:
    async with serial_rig(tmp_path) as rig:

        async def second() -> None:
            other = SerialSource(tmp_path / "meter", 2)
            refused = await collect(other, lambda _: "program" in (other.problem or ""), 3)
            assert frames_of(refused) == []
            assert other.problem is not None
            assert "another program holds it" in other.problem

        await while_running(rig.source, second)


async def test_a_closed_port_is_free_for_the_next_bridge(tmp_path: Path) -> None:
    """The emulator holds its terminal open, so the kernel would keep the lock for everybody but root."""
    async with serial_rig(tmp_path) as rig:
        port = os.open(tmp_path / "meter", os.O_RDWR | os.O_NOCTTY)
        try:

            async def locked() -> None:
                assert fcntl.ioctl(port, TIOCGEXCL, bytes(4)) != bytes(4)

            await while_running(rig.source, locked)
            assert fcntl.ioctl(port, TIOCGEXCL, bytes(4)) == bytes(4)
        finally:
            os.close(port)


async def while_running(source: Source, act: Callable[[], Awaitable[None]]) -> None:
    arrivals: list[Arrival] = []
    task = asyncio.create_task(source.run(arrivals.append))
    while not frames_of(arrivals):
        await asyncio.sleep(0.02)
    try:
        await act()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
