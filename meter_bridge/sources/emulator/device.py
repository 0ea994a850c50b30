"""The emulated meter itself: true energy in, protocol lines out; no clock and no port of its own.

It averages each node's power over the frame interval, as the metering ICs do, `lag_s` late, and stamps the end of the
interval with its own clock.
"""

import random
from dataclasses import dataclass, replace

from meter_bridge.protocol.frames import (
    DEVICE_MS_MODULUS,
    EnergyRegister,
    Frame,
    Hello,
    check_budget,
    format_frame,
    format_hello,
)
from meter_bridge.sources.emulator.faults import Fault, FaultPlan
from meter_bridge.sources.emulator.loads import Load
from shared.wire.meter_api import Ambient

FIRMWARE = "emulator-1"
_MAINS_V = 230.0
_MAINS_HZ = 50.0
_POWER_FACTOR = 0.62
"""Typical of a small supply without power factor correction."""


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """What the emulated meter is; `drift_ppm` is how much its clock runs fast."""

    rate_hz: float = 10.0
    lag_s: float = 0.0
    drift_ppm: float = 0.0
    noise_w: float = 0.02
    seed: int = 1
    crc: bool = True
    baud: int = 115_200
    serial: str = "emulator"
    fields: tuple[str, ...] = ("V", "A", "PF", "VAR")
    energy_register: EnergyRegister = "none"
    ambient: Ambient | None = None


class EmulatedMeter:
    """Makes lines; `begin_s` is the host time (monotonic seconds) at which it was switched on."""

    def __init__(self, spec: DeviceSpec, loads: list[Load], plan: FaultPlan, begin_s: float) -> None:
        self.spec = spec
        self._loads = loads
        self._plan = plan
        self._begin_s = begin_s
        self._random = random.Random(spec.seed)
        self._switch_on(begin_s)
        self._previous_s = begin_s
        self._interval_s = 1 / spec.rate_hz
        self._stuck: dict[int, float] = {}
        check_budget(self._formatted(self._frame([99.999] * len(loads), 2**31)), self.hello(), spec.rate_hz, spec.baud)
        self._switch_on(begin_s)  # the trial frame above has not been measured

    def _switch_on(self, at_s: float) -> None:
        self._on_s = at_s
        self._step_ms = 0.0
        self._seq = 0
        self._total_wh = [0.0] * len(self._loads)
        self._boot = self._random.getrandbits(31)
        self._hello_due_s = at_s
        self._last_line = b""

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self._loads)

    def hello(self) -> bytes:
        """Return the hello line."""
        spec = self.spec
        return format_hello(
            Hello(
                device="epi-emulator", kind="emulated", channels=len(self._loads), rate_hz=spec.rate_hz,
                firmware=FIRMWARE, serial=spec.serial, boot=self._boot, crc=spec.crc,
                energy_register=spec.energy_register, ambient=spec.ambient,
            )
        )  # fmt: skip

    def replug(self, at_s: float) -> None:
        """Start anew, as after a power cut."""
        self._switch_on(at_s)

    def device_ms(self, at_s: float) -> int:
        """Return what the device's clock shows."""
        elapsed_s = (at_s - self._on_s) * (1 + self.spec.drift_ppm * 1e-6)
        return int(elapsed_s * 1e3 + self._step_ms) % DEVICE_MS_MODULUS

    def observe(self, now_s: float) -> None:
        """Look at the nodes now; frames up to now can be made after it."""
        for load in self._loads:
            load.observe(now_s)

    def lines(self, at_s: float) -> list[bytes]:
        """Return the lines that the meter sends at `at_s`, faults included; each ends in a newline, or is cut."""
        since_s = at_s - self._begin_s
        if self._plan.moment("reset", since_s):
            self._switch_on(at_s)
        if step := self._plan.moment("clockstep", since_s):
            self._step_ms += step.parameters["ms"]
        frame = self._frame(self._measure(at_s, since_s), self.device_ms(at_s))
        self._seq = (self._seq + 1) % 2**32
        lines = []
        if at_s >= self._hello_due_s:
            lines.append(self.hello())
            self._hello_due_s = max(self._hello_due_s + 1.0, at_s)
        lines.append(self._formatted(frame))
        if self._plan.active("silence", since_s):
            return []
        return self._damaged(lines, since_s)

    def _measure(self, at_s: float, since_s: float) -> list[float]:
        """Return the mean power of each channel over the last interval, in watts, as this meter shows it."""
        lag_s, previous_s = self.spec.lag_s, self._previous_s
        self._previous_s, self._interval_s = at_s, at_s - previous_s
        watts = []
        for load in self._loads:
            joules = load.energy_j(at_s - lag_s) - load.energy_j(previous_s - lag_s)
            watts.append(joules / self._interval_s + self._random.gauss(0.0, self.spec.noise_w))
        return self._distorted(watts, since_s)

    def _distorted(self, watts: list[float], since_s: float) -> list[float]:
        active = self._plan.active
        for fault in active("swap", since_s):
            a, b = int(fault.parameters["a"]) - 1, int(fault.parameters["b"]) - 1
            watts[a], watts[b] = watts[b], watts[a]
        for fault in active("gain", since_s):
            watts[fault.channel] *= fault.parameters["k"]
        for fault in active("offset", since_s):
            watts[fault.channel] += fault.parameters["w"]
        for fault in active("flip", since_s):
            watts[fault.channel] *= -1
        for fault in active("noise", since_s):
            watts = [value + self._random.gauss(0.0, fault.parameters["w"]) for value in watts]
        for fault in active("startup", since_s):
            watts = [value if abs(value) >= fault.parameters["w"] else 0.0 for value in watts]
        for fault in active("clip", since_s):
            watts = [min(value, fault.parameters["w"]) for value in watts]
        for fault in active("quantise", since_s):
            watts = [round(value / fault.parameters["w"]) * fault.parameters["w"] for value in watts]
        return self._held(watts, active("stuck", since_s))

    def _held(self, watts: list[float], stuck: list[Fault]) -> list[float]:
        channels = {fault.channel for fault in stuck}
        self._stuck = {channel: self._stuck.get(channel, watts[channel]) for channel in channels}
        return [self._stuck.get(channel, value) for channel, value in enumerate(watts)]

    def _frame(self, watts: list[float], device_ms: int) -> Frame:
        fields = self.spec.fields
        volts = _MAINS_V
        apparent = [abs(value) / _POWER_FACTOR for value in watts]
        frame = Frame(power_w=tuple(watts), seq=self._seq, device_ms=device_ms)
        if "V" in fields:
            frame = replace(frame, voltage_v=(volts,) * len(watts))
        if "A" in fields:
            frame = replace(frame, current_a=tuple(va / volts for va in apparent))
        if "PF" in fields:
            frame = replace(frame, power_factor=tuple(_POWER_FACTOR if value else 0.0 for value in watts))
        if "VAR" in fields:
            factor = (1 - _POWER_FACTOR**2) ** 0.5
            frame = replace(frame, reactive_var=tuple(va * factor for va in apparent))
        if "Hz" in fields:
            frame = replace(frame, frequency_hz=_MAINS_HZ)
        if self.spec.energy_register != "none":
            frame = replace(frame, energy_wh=self._register(watts))
        return frame

    def _register(self, watts: list[float]) -> tuple[float, ...]:
        step_wh = [value * self._interval_s / 3600 for value in watts]
        if self.spec.energy_register == "delta":
            return tuple(step_wh)
        self._total_wh = [total + step for total, step in zip(self._total_wh, step_wh, strict=True)]
        return tuple(self._total_wh)

    def _formatted(self, frame: Frame) -> bytes:
        return format_frame(frame, crc=self.spec.crc)

    def _damaged(self, lines: list[bytes], since_s: float) -> list[bytes]:
        chance = self._random.random
        kinds = ("lose", "truncate", "badcrc", "repeat", "garbage")
        p = {kind: self._plan.probability(kind, since_s) for kind in kinds}
        if not any(p.values()):
            return lines
        sent: list[bytes] = []
        for line in lines:
            if chance() < p["lose"]:
                continue
            if chance() < p["truncate"]:
                line = line[: self._random.randrange(1, len(line))]
            if chance() < p["badcrc"]:
                spot = self._random.randrange(len(line) - 1) if len(line) > 1 else 0
                line = line[:spot] + bytes([line[spot] ^ 1 or 1]) + line[spot + 1 :]
            if chance() < p["garbage"]:
                sent.append(self._random.randbytes(self._random.randrange(1, 80)))
            sent.append(line)
            if self._last_line and chance() < p["repeat"]:
                sent.append(self._last_line)
            self._last_line = line
        return sent
