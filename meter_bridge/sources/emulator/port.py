"""The pseudo-terminal of the emulator: a link with a stable name, unplugged and plugged in again on demand.

It behaves like a UART: it never waits for its reader, and what does not fit the buffer is lost.
"""

import os
import tty
from contextlib import suppress
from pathlib import Path

from shared.kernel.errors import ConfigurationError


class PtyPort:
    """A pseudo-terminal whose slave `link` points to."""

    def __init__(self, link: Path) -> None:
        if link.exists() and not link.is_symlink():
            raise ConfigurationError("the link's name is taken by a file", where=str(link), hint="choose another name")
        self._link = link
        self._master: int | None = None
        self._slave: int | None = None
        self.slave_name = ""
        self.lost_bytes = 0

    @property
    def plugged(self) -> bool:
        """Tell whether the terminal exists."""
        return self._master is not None

    def plug(self) -> None:
        """Make the terminal and the link."""
        if self._master is not None:
            return
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.slave_name = os.ttyname(self._slave)
        fresh = self._link.with_name(self._link.name + ".new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(self.slave_name)
        fresh.replace(self._link)

    def unplug(self) -> None:
        """Remove link and terminal; the reader sees a device that vanished."""
        if self._master is None or self._slave is None:
            return
        with suppress(OSError):
            if self._link.readlink() == Path(self.slave_name):
                self._link.unlink()
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = None

    def write(self, data: bytes) -> None:
        """Send bytes; what the kernel's buffer does not take is lost, as on a wire."""
        if self._master is None:
            self.lost_bytes += len(data)
            return
        try:
            taken = os.write(self._master, data)
        except BlockingIOError:
            taken = 0
        self.lost_bytes += len(data) - taken
