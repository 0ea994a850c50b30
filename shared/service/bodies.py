"""How large the body of a request may be: bytes, values inside of its JSON, and the time it may take to come.

A parser turns 64 MB of brackets into 1.7 GB, so values are counted while the bytes come in, before any parser sees
them. How deep JSON may nest is bounded by the records it must fit, and by Python's own parser (1,000 levels).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.kernel.errors import ErrorPayload
from shared.service.error_answers import error_response

BODY_S = 120.0
"""Longest time in which a body has to come: 64 MB in it are 0.5 MB/s."""
_VALUE_MARKS = (b"[", b"{", b",")


@dataclass(frozen=True)
class BodySize:
    """What a body may hold at most."""

    n_bytes: int
    n_values: int


SMALL = BodySize(n_bytes=1 << 20, n_values=50_000)
"""Enough for any campaign spec or calibration."""
LARGE = BodySize(n_bytes=64 << 20, n_values=2_000_000)
"""Enough for the prompts of a whole benchmark, or a plan with merge matrices for 48 layers of 128 experts."""


class BodyLimit:
    """ASGI middleware that refuses bodies that are too large (413) or too slow (408).

    A length that is announced is refused before the body is read; a body in chunks is counted while it is read.
    """

    def __init__(self, app: ASGIApp, larger: Mapping[str, BodySize] | None = None) -> None:
        """`larger` names the paths, by their beginning, that may have more than `SMALL`."""
        self._app = app
        self._larger = larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413."""
        if scope["type"] == "http":
            size = next((size for start, size in self._larger.items() if scope["path"].startswith(start)), SMALL)
            length = dict(scope["headers"]).get(b"content-length", b"0")
            if not length.isdigit() or int(length) > size.n_bytes:
                payload = ErrorPayload(
                    code="http_413", fault="configuration", message=_message(size), where=scope["path"]
                )
                await error_response(413, payload)(scope, receive, send)
                return
            receive = _counted(receive, size)
        await self._app(scope, receive, send)


def _counted(receive: Receive, size: BodySize) -> Receive:
    n_bytes = n_values = 0
    ended = False
    deadline = asyncio.get_running_loop().time() + BODY_S

    async def counting() -> Message:
        nonlocal n_bytes, n_values, ended
        if ended:  # whoever listens now waits for the client to go away
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError as error:
            raise HTTPException(408, f"the body did not come within {BODY_S:.0f} s") from error
        body = message.get("body", b"")
        ended = not message.get("more_body", False)
        n_bytes += len(body)
        n_values += sum(body.count(mark) for mark in _VALUE_MARKS)
        if n_bytes > size.n_bytes or n_values > size.n_values:
            raise HTTPException(413, _message(size))
        return message

    return counting


def _message(size: BodySize) -> str:
    return f"the body may have at most {size.n_bytes} bytes and {size.n_values} values"
