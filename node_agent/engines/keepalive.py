"""TCP keepalive on the sockets that llama.cpp opens: a machine that loses power or cable says no goodbye.

Without it an engine waits for ever for a worker that vanished, and a worker for ever for an engine. With it the kernel
ends the connection after about half a minute of silence; a connection with traffic is not touched, an idle one costs
a packet every ten seconds. llama.cpp has no option for it, so it is set from within its process.
"""

import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_IDLE_S, _EVERY_S, _PROBES = 10, 5, 3
_UNSENT_S = 120
"""Probes are sent on an idle connection only: bytes in flight when the cable goes would be sent again for a quarter of
an hour. The kernel also counts the time in which a worker that computes does not read, so this is not as short."""
_LISTENS_WITHIN_S = 60.0
_POLL_S = 0.5


def _tcp_sockets() -> list[socket.socket]:
    """Return duplicates of this process's TCP sockets; the caller closes them."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are wanted, and entries vanish while listing
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            copy = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        if copy.family in (socket.AF_INET, socket.AF_INET6) and copy.type == socket.SOCK_STREAM:
            found.append(copy)
        else:
            copy.close()
    return found


def keep_alive() -> int:
    """Set keepalive on all TCP sockets of this process; return how many there are."""
    sockets = _tcp_sockets()
    for one in sockets:
        with one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_S)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _EVERY_S)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNSENT_S * 1000)
    return len(sockets)


@contextmanager
def keeping_alive() -> Iterator[None]:
    """Set keepalive on the sockets that are opened inside the block, each within a moment, and on all at its end.

    Loading a model opens connections one after another and sends gigabytes over them: a cable may go any time.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_S):
            keep_alive()

    thread = threading.Thread(target=watch, name="keepalive", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        keep_alive()


def keep_alive_once_listening() -> None:
    """Set keepalive on the socket this process will listen on soon; accepted connections inherit it from there.

    A thread looks for the socket for a moment and ends.
    """

    def watch() -> None:
        deadline = time.monotonic() + _LISTENS_WITHIN_S
        while not keep_alive() and time.monotonic() < deadline:
            time.sleep(0.02)

    threading.Thread(target=watch, name="keepalive", daemon=True).start()
