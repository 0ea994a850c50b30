"""Runs the emulated meter in real time: a frame a period on its own schedule, asleep in between."""

import selectors
import socket
from contextlib import suppress
from pathlib import Path

from meter_bridge.sources.emulator.device import EmulatedMeter
from meter_bridge.sources.emulator.faults import FaultPlan, parse_fault
from meter_bridge.sources.emulator.port import PtyPort
from shared.kernel.clock import monotonic_ns
from shared.kernel.errors import EpiError

_SPEC_BYTES = 200
_LONGEST_DELAY_NS = 2_000_000_000


class EmulatorRunner:
    """Connects a meter and a port until told to stop; `control` is an optional Unix socket that takes faults."""

    def __init__(self, meter: EmulatedMeter, port: PtyPort, plan: FaultPlan, control: Path | None = None) -> None:
        self._meter = meter
        self._port = port
        self._plan = plan
        self._channels = meter.channels
        self._control_path = control
        self._selector = selectors.DefaultSelector()
        self._stop = False
        self._begin_ns = monotonic_ns()

    def stop(self) -> None:
        """End `run` after the frame in hand; safe in a signal handler."""
        self._stop = True

    def run(self) -> None:
        """Send frames until stopped; always removes link and socket."""
        control = self._open_control()
        try:
            self._loop()
        finally:
            self._port.unplug()
            self._selector.close()
            if control is not None and self._control_path is not None:
                control.close()
                self._control_path.unlink(missing_ok=True)

    def _loop(self) -> None:
        period_ns = round(1e9 / self._meter.spec.rate_hz)
        due_ns = monotonic_ns() + period_ns
        while not self._stop:
            self._sleep_until(due_ns)
            now_ns = monotonic_ns()
            self._meter.observe(now_ns / 1e9)
            if now_ns - due_ns > _LONGEST_DELAY_NS:
                # A stopped process: the frames of that time were never sent, as by a hung device.
                due_ns = now_ns
            # A device measures on its own schedule: what the host made late is sent late, but not left out.
            while due_ns <= now_ns:
                self._frame(due_ns)
                due_ns += period_ns

    def _frame(self, at_ns: int) -> None:
        since_s = (at_ns - self._begin_ns) / 1e9
        if self._plan.active("unplug", since_s):
            self._port.unplug()
        elif not self._port.plugged:
            self._meter.replug(at_ns / 1e9)
            self._port.plug()
        lines = self._meter.lines(at_ns / 1e9)
        if lines:
            self._port.write(b"".join(lines))

    def _sleep_until(self, due_ns: int) -> None:
        while (left_s := (due_ns - monotonic_ns()) / 1e9) > 0:
            for key, _ in self._selector.select(left_s):
                self._take(key.fileobj)

    def _open_control(self) -> socket.socket | None:
        if self._control_path is None:
            return None
        self._control_path.unlink(missing_ok=True)
        control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        control.bind(str(self._control_path))
        self._selector.register(control, selectors.EVENT_READ)
        return control

    def _take(self, control: object) -> None:
        if not isinstance(control, socket.socket):
            return
        data, sender = control.recvfrom(_SPEC_BYTES)
        now_s = (monotonic_ns() - self._begin_ns) / 1e9
        try:
            self._plan.faults.append(parse_fault(data.decode(errors="replace"), self._channels, now_s=now_s))
            answer = "ok"
        except EpiError as error:
            answer = str(error)
        if sender:
            with suppress(OSError):
                control.sendto(answer.encode(), sender)
