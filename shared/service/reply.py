"""What another service answers, read in bounded memory and time whatever it sends.

The size that counts is the decoded one: 800 KB of gzip may hold 1.6 GB. Compressed bodies are decoded here, never by
the HTTP library, which decodes a piece of any size at once.

Not here: who is asked (`shared.service.endpoint`), large files (`shared.files.download`).
"""

import json
import time
import zlib
from dataclasses import dataclass
from typing import Any, Final

import httpx

from shared.kernel.errors import DataError, InfrastructureError, error_of_reply

MAX_REPLY_BYTES: Final = 64 << 20
"""As much as a service of the lab takes as a request (`shared.service.http.MAX_BODY_BYTES`)."""
_MAX_ERROR_BYTES: Final = 64 << 10
ACCEPTED: Final = "gzip"
"""The one encoding that is asked for (`Accept-Encoding`)."""
_GZIP_WINDOW_BITS: Final = 31


@dataclass(frozen=True)
class Reply:
    """The whole answer to a request; `where` names the request."""

    status: int
    body: bytes
    where: str

    @property
    def is_success(self) -> bool:
        """True for 2xx."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the parsed body.

        Raises:
            EpiError: what the other side reported, if it is no success.
            DataError: a success that is not JSON.
        """
        if not self.is_success:
            raise error_of_reply(self.status, self.body, self.where)
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise DataError(f"the answer is not JSON: {error}", where=self.where) from error


async def read_reply(response: httpx.Response, *, max_bytes: int = MAX_REPLY_BYTES) -> Reply:
    """Read a streamed response; of one that is no success at most 64 KiB.

    Raises:
        DataError: the body is larger than `max_bytes`, or damaged.
        httpx.TransportError: the connection broke.
    """
    body = _Body(response, max_bytes)
    async for chunk in response.aiter_raw():
        if not body.takes(chunk):
            break
    return body.reply()


def read_reply_sync(response: httpx.Response, *, max_bytes: int = MAX_REPLY_BYTES, within_s: float) -> Reply:
    """As `read_reply`, for a response of a synchronous client.

    Raises:
        InfrastructureError: the body is not whole after `within_s`.
    """
    body = _Body(response, max_bytes)
    end = time.monotonic() + within_s
    for chunk in response.iter_raw():
        if not body.takes(chunk):
            break
        if time.monotonic() > end:
            raise not_whole(within_s, body.where)
    return body.reply()


def not_whole(within_s: float, where: str) -> InfrastructureError:
    """Return the error of an answer that does not end."""
    return InfrastructureError(f"the answer was not whole after {within_s:g} s", where=where)


class _Body:
    """Collects what arrives, decoded."""

    def __init__(self, response: httpx.Response, max_bytes: int) -> None:
        self.where = f"{response.request.method} {response.request.url}"
        self._status = response.status_code
        self._is_success = response.is_success
        self._max_bytes = max_bytes if response.is_success else _MAX_ERROR_BYTES
        self._data = bytearray()
        self._decoder = None
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding == ACCEPTED:
            self._decoder = zlib.decompressobj(_GZIP_WINDOW_BITS)
        elif encoding != "identity":
            raise DataError(f"the answer is encoded as {encoding[:40]!r}, which nobody asked for", where=self.where)

    def takes(self, chunk: bytes) -> bool:
        """Take a piece; False when an error's text is long enough."""
        self._data += self._decoded(chunk, self._max_bytes - len(self._data) + 1)
        if len(self._data) <= self._max_bytes:
            return True
        if self._is_success:
            raise DataError(f"the answer has more than {self._max_bytes} bytes", where=self.where)
        del self._data[self._max_bytes :]
        return False

    def _decoded(self, chunk: bytes, max_bytes: int) -> bytes:
        if self._decoder is None:
            return chunk[:max_bytes]
        if self._decoder.eof:
            raise DataError("something follows the end of the compressed answer", where=self.where)
        try:
            return self._decoder.decompress(chunk, max_bytes)
        except zlib.error as error:
            raise DataError(f"the compressed answer is damaged: {error}", where=self.where) from error

    def reply(self) -> Reply:
        """Return what came.

        Raises:
            DataError: the compressed body was cut off.
        """
        if self._is_success and self._decoder is not None and not self._decoder.eof:
            raise DataError("the compressed answer is cut off", where=self.where)
        return Reply(self._status, bytes(self._data), self.where)
