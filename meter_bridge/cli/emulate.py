"""`epi meter emulate`: the emulated meter as a process of its own."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from meter_bridge.protocol.frames import EnergyRegister
from meter_bridge.sources.emulator.device import DeviceSpec, EmulatedMeter
from meter_bridge.sources.emulator.faults import FaultPlan, parse_fault
from meter_bridge.sources.emulator.loads import Load, ProcessLoad, ScheduleLoad, load_trace, parse_schedule
from meter_bridge.sources.emulator.port import PtyPort
from meter_bridge.sources.emulator.run import EmulatorRunner
from shared.kernel.clock import monotonic_ns
from shared.kernel.errors import ConfigurationError
from shared.screen import say
from shared.wire.meter_api import Ambient

_FIELDS = ("V", "A", "PF", "VAR", "Hz")


def emulate(
    link: Annotated[Path, typer.Option(help="symbolic link to make, pointing to the pseudo-terminal")],
    channel: Annotated[
        list[str], typer.Option(help="NODE=DIR (pid files), NODE=schedule:5x3.2,10x12 or NODE=trace:FILE.csv; repeat")
    ],
    rate: Annotated[float, typer.Option(help="frames a second", min=0.1, max=100)] = 10.0,
    idle_w: Annotated[float, typer.Option(help="watts of a node that does nothing", min=0)] = 3.2,
    core_w: Annotated[float, typer.Option(help="watts more for each busy core", min=0)] = 4.0,
    noise_w: Annotated[float, typer.Option(help="standard deviation of the noise", min=0)] = 0.02,
    lag_s: Annotated[float, typer.Option(help="seconds by which readings are late", min=0, max=9)] = 0.0,
    drift_ppm: Annotated[float, typer.Option(help="by how much the device's clock runs fast")] = 0.0,
    seed: Annotated[int, typer.Option(help="seed of noise and chance")] = 1,
    crc: Annotated[bool, typer.Option(help="end each line in a CRC-16")] = True,
    baud: Annotated[int, typer.Option(help="pretended baud rate: frames that do not fit are refused")] = 115_200,
    fields: Annotated[str, typer.Option(help="quantities beside W")] = "V,A,PF,VAR",
    energy_register: Annotated[EnergyRegister, typer.Option(help="none, total, or delta (clears on read)")] = "none",
    serial: Annotated[str, typer.Option(help="serial number in the hello line")] = "emulator",
    ambient_c: Annotated[float | None, typer.Option(help="temperature of the room; none: no sensor")] = None,
    humidity: Annotated[float | None, typer.Option(help="relative humidity of the room in percent")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="KIND[:key=value,...][@START[+DURATION]]; repeat")] = None,
    control: Annotated[Path | None, typer.Option(help="Unix socket that takes faults while running")] = None,
) -> None:
    """Speak protocol v1 on a pseudo-terminal, with watts from the CPU time that processes really use."""
    names = [name.strip() for name in fields.split(",") if name.strip()]
    if unknown := [name for name in names if name not in _FIELDS]:
        raise ConfigurationError(f"unknown field {unknown[0]!r}", where="--fields", hint=f"known: {', '.join(_FIELDS)}")
    spec = DeviceSpec(
        rate_hz=rate, lag_s=lag_s, drift_ppm=drift_ppm, noise_w=noise_w, seed=seed, crc=crc, baud=baud, serial=serial,
        fields=tuple(names), energy_register=energy_register,
        ambient=None if ambient_c is None and humidity is None else Ambient(
            temperature_c=ambient_c, humidity_percent=humidity
        ),
    )  # fmt: skip
    now_s = monotonic_ns() / 1e9
    loads = [_load(text, idle_w=idle_w, core_w=core_w, now_s=now_s) for text in channel]
    plan = FaultPlan([parse_fault(text, len(loads)) for text in fault or []])
    port = PtyPort(link)
    runner = EmulatorRunner(EmulatedMeter(spec, loads, plan, now_s), port, plan, control)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: runner.stop())
    port.plug()
    say(f"emulated meter ready: {link} -> {port.slave_name}, {len(loads)} channels at {rate:g} Hz")
    runner.run()


def _load(text: str, *, idle_w: float, core_w: float, now_s: float) -> Load:
    name, separator, what = text.partition("=")
    if not separator or not name or not what:
        raise ConfigurationError("a channel is written NODE=SOURCE", where=text, hint="as in node1=/run/epi/node1/pids")
    if what.startswith("schedule:"):
        return ScheduleLoad(parse_schedule(what.removeprefix("schedule:")), now_s=now_s)
    if what.startswith("trace:"):
        return ScheduleLoad(load_trace(Path(what.removeprefix("trace:")), name), now_s=now_s)
    return ProcessLoad(Path(what), idle_w=idle_w, core_w=core_w, now_s=now_s)
