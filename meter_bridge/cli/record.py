"""`epi meter record` and `epi meter replay`: a source into a file, and a file back onto a pseudo-terminal."""

import asyncio
import contextlib
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from meter_bridge.protocol.frames import Frame, Hello, format_frame, format_hello
from meter_bridge.settings import BridgeSettings
from meter_bridge.sources.base import Arrival
from meter_bridge.sources.emulator.port import PtyPort
from meter_bridge.sources.replay import replay_hello
from meter_bridge.trace.recording import RecordingHead, RecordingWriter, read_head, read_recording
from shared.bars import progress_bar
from shared.kernel.clock import monotonic_ns
from shared.kernel.errors import InfrastructureError
from shared.kernel.settings import load_settings
from shared.screen import say

_HELLO_WAIT_S = 10.0


def record(
    config: Annotated[Path, typer.Option(help="the bridge's TOML: its source is read, the bridge must not run")],
    out: Annotated[Path, typer.Option(help="recording to write (.rec.gz)")],
    seconds: Annotated[float, typer.Option(help="how long", min=0.1)] = 60.0,
) -> None:
    """Record what a source sends, to be replayed."""
    settings = load_settings(BridgeSettings, config)
    frames = asyncio.run(_record(settings, out, seconds))
    say(f"{frames} frames recorded in {out}")


async def _record(settings: BridgeSettings, out: Path, seconds: float) -> int:
    source = settings.source.make(len(settings.channels))
    arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
    task = asyncio.create_task(source.run(arrivals.put_nowait))
    try:
        hello, early = await _first_hello(arrivals)
        if hello is None:
            raise InfrastructureError(
                source.problem or f"no hello within {_HELLO_WAIT_S:.0f} s", where=str(settings.source)
            )
        head = RecordingHead(
            settings.channels, hello.rate_hz, hello.device, hello.emulated,
            hello.measurement_point or settings.instrument.measurement_point, hello.firmware,
        )  # fmt: skip
        with RecordingWriter(out, head) as writer, progress_bar("recording") as publish:
            for arrival in early:
                _write(writer, arrival)
            begun = time.monotonic()
            while (passed := time.monotonic() - begun) < seconds:
                publish(passed / seconds, f"{writer.frames} frames")
                with contextlib.suppress(TimeoutError):
                    _write(writer, await asyncio.wait_for(arrivals.get(), min(1.0, seconds - passed)))
            return writer.frames
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _first_hello(arrivals: "asyncio.Queue[Arrival]") -> tuple[Hello | None, list[Arrival]]:
    early: list[Arrival] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_HELLO_WAIT_S):
            while True:
                arrival = await arrivals.get()
                early.append(arrival)
                if isinstance(arrival.item, Hello):
                    return arrival.item, early
    return None, early


def _write(writer: RecordingWriter, arrival: Arrival) -> None:
    if isinstance(arrival.item, Frame):
        writer.add(arrival.item, arrival.mono_ns)


def replay(
    recording: Annotated[Path, typer.Argument(help="a recording, a trace CSV or a trace database")],
    link: Annotated[Path, typer.Option(help="symbolic link to make, pointing to the pseudo-terminal")],
) -> None:
    """Play a stored trace on a pseudo-terminal, in its own time; the hello says `replay`.

    Faster than real time is the bridge's own source `replay`: on a wire the time cannot be stretched.
    """
    head = read_head(recording)
    hello = format_hello(replay_hello(head))
    port, stopped = PtyPort(link), False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    port.plug()
    say(f"replay ready: {link} -> {port.slave_name}, {len(head.nodes)} channels at {head.rate_hz:g} Hz")
    begun, hello_due = monotonic_ns(), 0
    try:
        for recorded in read_recording(recording):
            while not stopped and (left_s := (begun + recorded.offset_ns - monotonic_ns()) / 1e9) > 0:
                time.sleep(min(left_s, 0.2))
            if stopped:
                break
            if recorded.offset_ns >= hello_due:
                port.write(hello)
                hello_due = recorded.offset_ns + 10**9
            port.write(format_frame(recorded.frame, crc=True))
    finally:
        port.unplug()
