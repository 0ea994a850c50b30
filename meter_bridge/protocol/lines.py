"""Bytes in, lines out: the bounded buffer between a serial port and the parser."""

from meter_bridge.protocol.frames import MAX_LINE_BYTES


class LineBuffer:
    """Cuts a byte stream at newlines and never holds more than `limit` bytes.

    A line over the limit is dropped as a whole, up to its newline, and counted in `overflows`.
    """

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._rest = b""
        self._skipping = False
        self.overflows = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes, without their newlines."""
        *lines, rest = (self._rest + data).split(b"\n")
        whole = []
        for line in lines:
            if self._skipping:
                self._skipping = False
            elif len(line) > self._limit:
                self.overflows += 1
            else:
                whole.append(line)
        if self._skipping:
            rest = b""
        elif len(rest) > self._limit:
            self._skipping = True
            self.overflows += 1
            rest = b""
        self._rest = rest
        return whole

    def clear(self) -> None:
        """Forget a half-received line."""
        self._rest = b""
        self._skipping = False
