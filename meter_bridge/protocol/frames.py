"""Protocol v1 as records and bytes: the hello line, the frame, their checksum and their byte budget.

Not here: reading foreign dialects (`aliases`), cutting a byte stream into lines (`lines`), and what a sequence of
frames means (`sequence`, `timebase`). The protocol itself is docs/meter-protocol.md.
"""

import binascii
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.kernel.errors import ConfigurationError
from shared.wire.meter_api import Ambient

PROTOCOL_MAJOR = 1
PROTOCOL_VERSION = "1.0"
MAX_LINE_BYTES = 1024
"""A longer line is not a line of any meter: it is noise, and is dropped up to the next newline."""
SEQUENCE_MODULUS = 2**32
DEVICE_MS_MODULUS = 2**32
BITS_PER_BYTE_8N1 = 10

EnergyRegister = Literal["none", "total", "delta"]
NAN = math.nan


@dataclass(frozen=True, slots=True)
class Hello:
    """What a meter says of itself, at start and once a second.

    `kind` is `ac_meter`, `emulated` or `replay` on the wire; the bridge's other sources name themselves.
    `measurement_point` is set by sources that know what they measure better than the settings do.
    """

    device: str
    kind: str
    channels: int
    rate_hz: float
    version: str = PROTOCOL_VERSION
    firmware: str | None = None
    serial: str | None = None
    calibration: str | None = None
    boot: int | None = None
    crc: bool = False
    energy_register: EnergyRegister = "none"
    emulated: bool = False
    measurement_point: str | None = None
    ambient: Ambient | None = field(default=None, compare=False)  # changes all the time: not what the meter is


@dataclass(frozen=True, slots=True)
class Frame:
    """One reading of all channels; NaN where a channel sent no valid value, None where the quantity was not sent.

    Units: watt, volt, ampere, power factor -1..1, var, hertz, watt-hour; `device_ms` is the device's own clock at the
    end of the averaging interval, `seq` counts frames modulo 2^32.
    """

    power_w: tuple[float, ...]
    seq: int | None = None
    device_ms: int | None = None
    voltage_v: tuple[float, ...] | None = None
    current_a: tuple[float, ...] | None = None
    power_factor: tuple[float, ...] | None = None
    reactive_var: tuple[float, ...] | None = None
    frequency_hz: float | None = None
    energy_wh: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that is neither; `line` holds its first bytes, for the event log."""

    reason: str
    line: bytes = field(default=b"", repr=False)


def checksum(body: bytes) -> int:
    """Return CRC-16/CCITT-FALSE (polynomial 0x1021, start 0xFFFF) of `body`."""
    return binascii.crc_hqx(body, 0xFFFF)


def frame_budget_bytes(rate_hz: float, baud: int = 115_200, hello_bytes: int = 0) -> int:
    """Return how many bytes a frame may have, newline included, so that frames and one hello a second fit the line.

    8N1 sends 10 bits a byte: 115200 baud carries 11,520 bytes a second, 230 a frame at 50 Hz without hello.
    """
    return math.floor((baud / BITS_PER_BYTE_8N1 - hello_bytes) / rate_hz)


def format_hello(hello: Hello) -> bytes:
    """Return the hello line with its newline."""
    body: dict[str, Any] = {
        "epi": hello.version, "dev": hello.device, "kind": hello.kind, "ch": hello.channels, "rate": hello.rate_hz,
        "fw": hello.firmware, "sn": hello.serial, "cal": hello.calibration, "boot": hello.boot,
        "crc": int(hello.crc), "ereg": hello.energy_register,
        "emu": 1 if hello.emulated and hello.kind != "emulated" else None,
        "amb": None if hello.ambient is None else hello.ambient.temperature_c,
        "rh": None if hello.ambient is None else hello.ambient.humidity_percent,
    }  # fmt: skip
    return _finish({key: value for key, value in body.items() if value is not None}, crc=hello.crc)


def format_frame(frame: Frame, *, crc: bool) -> bytes:
    """Return the frame as a line with its newline; numbers carry the resolution of the metering ICs."""
    body: dict[str, Any] = {}
    if frame.seq is not None:
        body["s"] = frame.seq
    if frame.device_ms is not None:
        body["t"] = frame.device_ms
    body["W"] = _column(frame.power_w, 3)
    for key, values, digits in (
        ("V", frame.voltage_v, 2), ("A", frame.current_a, 3), ("PF", frame.power_factor, 3),
        ("VAR", frame.reactive_var, 2), ("Wh", frame.energy_wh, 5),
    ):  # fmt: skip
        if values is not None:
            body[key] = _column(values, digits)
    if frame.frequency_hz is not None:
        body["Hz"] = round(frame.frequency_hz, 2)
    return _finish(body, crc=crc)


def check_budget(line: bytes, hello: bytes, rate_hz: float, baud: int) -> None:
    """Refuse a frame that the serial line cannot carry at this rate.

    Raises:
        ConfigurationError: the frame is longer than the budget.
    """
    budget = frame_budget_bytes(rate_hz, baud, len(hello))
    if len(line) > budget:
        raise ConfigurationError(
            f"a frame of {len(line)} bytes does not fit: {baud} baud carries {budget} bytes a frame at {rate_hz:g} Hz",
            hint="send fewer quantities, lower the rate or raise the baud rate",
        )


def _column(values: tuple[float, ...], digits: int) -> list[float | int | None]:
    return [None if math.isnan(value) else _short(round(value, digits)) for value in values]


def _short(value: float) -> float | int:
    """Spend no bytes on `.0` and none on the sign of zero."""
    return int(value) if value.is_integer() else value


def _finish(body: dict[str, Any], *, crc: bool) -> bytes:
    line = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    return b"%b*%04X\n" % (line, checksum(line)) if crc else line + b"\n"
