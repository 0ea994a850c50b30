"""Following the log file that another meter lets grow.

Not here: what its lines mean (`ptdaemon`, `csv`), and playing finished files back (`replay`).
"""

import asyncio
import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from meter_bridge.protocol.frames import DEVICE_MS_MODULUS, MAX_LINE_BYTES, SEQUENCE_MODULUS, Frame, Hello, Malformed
from meter_bridge.protocol.lines import LineBuffer
from meter_bridge.sources.base import Emit, LinkEvent, Source, stamp
from shared.kernel.regular_files import open_regular

LOOK_EVERY_S = 0.1
_READ_BYTES = 1 << 16

Parsed = tuple[float, tuple[float, ...], tuple[float, ...] | None, tuple[float, ...] | None]
"""Unix seconds of the log's own clock, watts, volts, amperes."""
Parser = Callable[[str], Parsed | None]
"""Reads a line; None for a line without a reading, ValueError or KeyError for one that is none of this log."""


class LogSource(Source):
    """Follows a log file as it grows: what is in it at the start is old; a file that comes anew is read whole.

    `fresh_parser` is called for every new file: a CSV's header belongs to its file.
    """

    def __init__(self, path: Path, hello: Hello, fresh_parser: Callable[[], Parser]) -> None:
        super().__init__(hello.channels, "the log has not been read yet")
        self._path = path
        self._hello = hello
        self._fresh_parser = fresh_parser
        self._seq = 0
        self._origin_s: float | None = None

    async def run(self, emit: Emit) -> None:
        """Follow the file until cancelled."""
        descriptor, place, lines, parse = -1, (0, 0), LineBuffer(), self._fresh_parser()
        hello_due, seen = 0.0, False
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    status = self._path.stat()
                    if not stat.S_ISREG(status.st_mode):
                        raise OSError(errno.EINVAL, "no regular file")
                except OSError as error:
                    self._problem, seen = f"the log {self._path} cannot be read: {error.strerror}", True
                    if descriptor >= 0:
                        os.close(descriptor)
                        descriptor = -1
                        emit(stamp(LinkEvent("disconnected", self._problem)))
                else:
                    here = (status.st_dev, status.st_ino)
                    if descriptor < 0 or here != place or status.st_size < os.lseek(descriptor, 0, os.SEEK_CUR):
                        if descriptor >= 0:
                            os.close(descriptor)
                        descriptor, place = self._open(), here
                        lines, parse, self._problem = LineBuffer(MAX_LINE_BYTES), self._fresh_parser(), None
                        if not seen:
                            self._skip(descriptor, status.st_size, parse, emit)
                            seen = True
                        emit(stamp(LinkEvent("connected", str(self._path))))
                        hello_due = 0.0
                    if loop.time() >= hello_due:
                        emit(stamp(self._hello))
                        hello_due = loop.time() + 1.0
                    while data := os.read(descriptor, _READ_BYTES):
                        for line in lines.feed(data):
                            self._line(line, parse, emit)
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _open(self) -> int:
        with open_regular(self._path) as file:
            return os.dup(file.fileno())

    def _skip(self, descriptor: int, size: int, parse: Parser, emit: Emit) -> None:
        """Read the first line, which may name the columns, and go to the end."""
        first, newline, _ = os.read(descriptor, min(size, MAX_LINE_BYTES)).partition(b"\n")
        if not newline:
            os.lseek(descriptor, 0, os.SEEK_SET)
            return
        with suppress(ValueError, KeyError, OverflowError):
            parse(first.decode("utf-8"))
        os.lseek(descriptor, 0, os.SEEK_END)

    def _line(self, line: bytes, parse: Parser, emit: Emit) -> None:
        try:
            parsed = parse(line.decode("utf-8"))
        except (ValueError, KeyError, OverflowError) as error:
            emit(stamp(Malformed(f"not a line of this log: {error}", line[:120])))
            return
        if parsed is None:
            return
        seconds, watts, volts, amperes = parsed
        if self._origin_s is None:
            self._origin_s = seconds
        device_ms = round((seconds - self._origin_s) * 1000) % DEVICE_MS_MODULUS
        emit(stamp(Frame(watts, seq=self._seq, device_ms=device_ms, voltage_v=volts, current_a=amperes)))
        self._seq = (self._seq + 1) % SEQUENCE_MODULUS
