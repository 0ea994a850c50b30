"""A process that ends when the process that started it ends, however that ends (prctl(2), PR_SET_PDEATHSIG).

`python -m shared.service.die_with_parent PARENT MODULE ARGS...` runs a module that gets SIGTERM when PARENT dies. Linux
sends the signal when the starting *thread* ends, so children are started from threads that live as long as the process.
"""

import ctypes
import os
import runpy
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
# Loaded here and not in the call: between fork and exec nothing should be loaded.
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent(number: signal.Signals, parent: int | None = None) -> None:
    """Ask the kernel to send this process `number` when its parent dies; elsewhere than on Linux nothing happens.

    With `parent`, the pid that started this process, the process ends here if that one is gone already.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Tie this process to its parent and become the module."""
    die_with_parent(signal.SIGTERM, int(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
