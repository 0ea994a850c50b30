"""An HTTP server that sends exactly the bytes it is told to: answers no sound server gives, over real sockets."""

import socketserver
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

Speak = Callable[[str, BinaryIO], None]
"""Called with the request's head and the stream to write the answer to; the connection is closed when it returns."""


@contextmanager
def raw_server(speak: Speak) -> Iterator[str]:
    """Serve on loopback, each connection in a thread of its own; give the base URL."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines = []
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                lines.append(line.decode("latin-1"))
            with suppress(OSError):  # whoever asked has heard enough
                speak("".join(lines), self.wfile)  # type: ignore[arg-type]

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def saying(answer: bytes) -> Speak:
    """Return what says the same to everybody."""

    def speak(_head: str, out: BinaryIO) -> None:
        out.write(answer)

    return speak


def response(status: str, body: bytes, **headers: str) -> bytes:
    """Return a whole answer; keyword `content_range` becomes the header Content-Range. A length is added if none is."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named.setdefault("content-length", str(len(body)))
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in named.items() if value), "", ""]
    return "\r\n".join(lines).encode() + body


def gzip_bomb(n_bytes: int) -> Iterator[bytes]:
    """Yield a gzip stream of zeros that grows to `n_bytes` when it is decoded: 1 MiB from each KiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    yield packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    step = 1 << 20
    block = packer.compress(bytes(step)) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(n_bytes // step):
        yield block
