"""One line in, one `Hello`, `Frame` or `Malformed` out; never an exception, whatever the line holds.

Not here: cutting bytes into lines (`lines`), names in foreign dialects (`aliases`).
"""

import json
import math
from typing import Any, TypeVar

from pydantic import ValidationError

from meter_bridge.protocol import aliases
from meter_bridge.protocol.frames import (
    DEVICE_MS_MODULUS,
    NAN,
    PROTOCOL_MAJOR,
    SEQUENCE_MODULUS,
    Frame,
    Hello,
    Malformed,
    checksum,
)
from meter_bridge.protocol.limits import fault_of
from shared.kernel.numbers import decimal
from shared.wire.meter_api import Ambient

Item = Hello | Frame | Malformed
T = TypeVar("T", Frame, Hello)
_SHOWN_BYTES = 120


class _BadLineError(Exception):
    """Why a line is refused; never leaves this module."""


class LineParser:
    """Parses the lines of one link.

    Once the meter has said hello with CRC, a line without CRC is refused; once it has said hello at all, foreign
    dialects are refused: damage must not pass as another dialect.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._hello: Hello | None = None

    def reset(self) -> None:
        """Forget the hello: after a reconnect another device may speak."""
        self._hello = None

    def parse(self, line: bytes) -> list[Item]:
        """Return what a line (without newline) holds.

        Usually one item. A line whose beginning is damaged and which ends in a whole frame (a lost newline) gives the
        damage and the frame.
        """
        line = line.strip(b"\r\x00 \t")
        if not line:
            return []
        try:
            return [self._parse(line)]
        except _BadLineError as reason:
            bad = Malformed(str(reason), line[:_SHOWN_BYTES])
        start = line.rfind(b'{"')
        if start > 0:
            try:
                return [bad, self._parse(line[start:])]
            except _BadLineError:
                pass
        return [bad]

    def _parse(self, line: bytes) -> Item:
        if line.startswith(b"{"):
            fields = _json_object(self._checked(line))
            if "epi" in fields:
                self._hello = _hello(fields, self._channels)
                return self._hello
            return _frame(fields, self._channels)
        if self._hello is not None:
            raise _BadLineError("not a line of protocol v1")
        try:
            text = line.decode("ascii")
        except UnicodeDecodeError:
            raise _BadLineError("not text") from None
        if (pairs := aliases.split_pairs(text)) is not None:
            return _frame({key: _number(value) for key, value in pairs.items()}, self._channels)
        if (values := aliases.split_plain(text)) is not None:
            if len(values) != self._channels:
                raise _BadLineError(f"{len(values)} values, {self._channels} channels are configured")
            return _frame({"W": [_number(value) for value in values]}, self._channels)
        raise _BadLineError("unknown kind of line")

    def _checked(self, line: bytes) -> bytes:
        if line[-5:-4] == b"*":
            body, digits = line[:-5], line[-4:]
            try:
                sent = int(digits, 16)
            except ValueError:
                raise _BadLineError("bad CRC digits") from None
            if sent != checksum(body):
                raise _BadLineError("CRC differs")
            return body
        if self._hello is not None and self._hello.crc:
            raise _BadLineError("CRC missing")
        return line


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body, object_pairs_hook=_no_repeats, parse_constant=_no_constants)
    except (ValueError, RecursionError):
        raise _BadLineError("not JSON") from None
    if not isinstance(value, dict):
        raise _BadLineError("not a JSON object")
    return value


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is repeated")
    return fields


def _no_constants(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _number(text: str) -> float:
    try:
        return decimal(text.strip(), math.inf)
    except ValueError as error:
        raise _BadLineError(str(error)) from None


def _finite(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _BadLineError(f"{what} is not a number")
    try:
        number = float(value)
    except OverflowError:
        raise _BadLineError(f"{what} is out of range") from None
    if not math.isfinite(number):
        raise _BadLineError(f"{what} is not finite")
    return number


def _count(value: object, modulus: int, what: str) -> int:
    number = _finite(value, what)
    if not number.is_integer() or not 0 <= number < modulus:
        raise _BadLineError(f"{what} is not a whole number below {modulus}")
    return int(number)


def _text(value: object, what: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > 64:
        raise _BadLineError(f"{what} is not a short text")
    return value


def _hello(fields: dict[str, Any], channels: int) -> Hello:
    version = fields["epi"]
    if not isinstance(version, str) or version.partition(".")[0] != str(PROTOCOL_MAJOR):
        raise _BadLineError(f"protocol {version!r} is not spoken here, only {PROTOCOL_MAJOR}.x")
    kind, register = fields.get("kind"), fields.get("ereg", "none")
    if kind not in ("ac_meter", "emulated", "replay"):
        raise _BadLineError(f"hello of unknown kind {kind!r}")
    if register not in ("none", "total", "delta"):
        raise _BadLineError(f"unknown energy register {register!r}")
    sent = _count(fields.get("ch"), 1000, "ch")
    if sent != channels:
        raise _BadLineError(f"the meter has {sent} channels, {channels} are configured")
    rate_hz = _finite(fields.get("rate"), "rate")
    hello = Hello(
        device=_text(fields.get("dev"), "dev") or "unnamed", kind=kind, channels=sent, rate_hz=rate_hz, version=version,
        firmware=_text(fields.get("fw"), "fw"), serial=_text(fields.get("sn"), "sn"),
        calibration=_text(fields.get("cal"), "cal"),
        boot=None if fields.get("boot") is None else _count(fields["boot"], 2**32, "boot"),
        crc=bool(fields.get("crc", 0)), energy_register=register,
        emulated=kind == "emulated" or bool(fields.get("emu", 0)), ambient=_ambient(fields),
    )  # fmt: skip
    return _possible(hello)


def _possible(item: T) -> T:
    if (fault := fault_of(item)) is not None:
        raise _BadLineError(fault)
    return item


def _ambient(fields: dict[str, Any]) -> Ambient | None:
    """Return what the meter says of the room; a sensor that is absent or out of order must not cost the hello."""
    try:
        ambient = Ambient(temperature_c=fields.get("amb"), humidity_percent=fields.get("rh"))
    except ValidationError:
        return None
    return None if ambient == Ambient() else ambient


def _frame(fields: dict[str, Any], channels: int) -> Frame:
    columns: dict[str, tuple[float, ...]] = {}
    single: dict[str, dict[int, float]] = {}
    scalars: dict[str, object] = {}
    for name, value in fields.items():
        if (quantity := name if name in _EXACT else aliases.quantity_of(name)) is not None:
            if quantity in columns or quantity in single:
                raise _BadLineError(f"{quantity} is sent twice")
            columns[quantity] = _column(value, channels, quantity)
        elif (scalar := aliases.scalar_of(name)) is not None:
            if scalar in scalars:
                raise _BadLineError(f"{scalar} is sent twice")
            scalars[scalar] = value
        elif (numbered := aliases.numbered_of(name)) is not None:
            quantity, channel = numbered
            row = single.setdefault(quantity, {})
            if channel in row or quantity in columns or not 0 <= channel < channels:
                raise _BadLineError(f"{name} does not fit {channels} channels")
            row[channel] = _finite(value, name)
        # Other names are quantities this version does not know: a higher minor version may add some.
    for quantity, row in single.items():
        columns[quantity] = tuple(row.get(channel, NAN) for channel in range(channels))
    power_w = columns.get("W")
    if power_w is None:
        raise _BadLineError("no power")
    frequency = scalars.get("Hz")
    frame = Frame(
        power_w=power_w,
        seq=None if scalars.get("s") is None else _count(scalars["s"], SEQUENCE_MODULUS, "s"),
        device_ms=None if scalars.get("t") is None else _count(scalars["t"], DEVICE_MS_MODULUS, "t"),
        voltage_v=columns.get("V"), current_a=columns.get("A"), power_factor=columns.get("PF"),
        reactive_var=columns.get("VAR"), energy_wh=columns.get("Wh"),
        frequency_hz=None if frequency is None else _finite(frequency, "Hz"),
    )  # fmt: skip
    return _possible(frame)


_EXACT = frozenset({"W", "V", "A", "PF", "VAR", "Wh"})


def _column(value: object, channels: int, what: str) -> tuple[float, ...]:
    if not isinstance(value, list):
        # One supply voltage for all channels is a common dialect; one power is only right with one channel.
        if channels > 1 and what != "V":
            raise _BadLineError(f"{what} is one value for {channels} channels")
        return (_finite(value, what),) * channels
    if len(value) != channels:
        raise _BadLineError(f"{what} has {len(value)} values, {channels} channels are configured")
    return tuple(NAN if entry is None else _finite(entry, what) for entry in value)
