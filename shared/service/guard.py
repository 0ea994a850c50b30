"""The guard at the door of a service: nothing of a request is read before its credentials were seen.

Every path is guarded but those that a service names open. Not here: who may enter with what
(`shared.service.admission`).
"""

import asyncio
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.kernel.errors import AuthError
from shared.service.admission import Admission, Admitted
from shared.service.connections import LET_IN
from shared.service.error_answers import POLICY_VIOLATION, close_reason, error_response
from shared.service.session_cookie import set_cookie
from shared.service.sessions import Session, Sessions

ADMITTED: Final = "epi.admitted"
"""Key of the scope of a request that the guard let in: who asks (`Admitted`)."""


class TokenGuard:
    """ASGI middleware that refuses HTTP requests and WebSockets whose credentials are missing or wrong.

    A feed that a signed-in browser has open is closed when its session ends.
    """

    def __init__(
        self, app: ASGIApp, admission: Admission, open_paths: Iterable[str], sessions: Sessions | None = None
    ) -> None:
        """An open path that ends in `/` opens everything below it."""
        self._app = app
        self._admission = admission
        self._sessions = sessions
        self._open = frozenset(path for path in open_paths if not path.endswith("/") or path == "/")
        self._open_below = tuple(path for path in open_paths if path.endswith("/") and path != "/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, 403 or 429 without looking at its body."""
        if scope["type"] in ("http", "websocket") and not self._is_open(scope["path"]):
            try:
                admitted = self._admission(HTTPConnection(scope))
            except AuthError as error:
                if scope["type"] == "websocket":
                    reason = close_reason(error.message)
                    await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": reason})
                else:
                    await error_response(error.http_status, error.to_payload())(scope, receive, send)
                return
            scope[LET_IN] = True
            scope[ADMITTED] = admitted
            if admitted.session is not None and self._sessions is not None:
                if scope["type"] == "websocket":
                    receive = _until_ended(receive, send, admitted.session, self._sessions)
                else:
                    send = _renewing(scope, send, admitted.session, self._sessions)
        await self._app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in self._open or path.startswith(self._open_below)


def admitted_of(connection: HTTPConnection) -> Admitted:
    """Return who asks, as the guard let them in."""
    found = connection.scope.get(ADMITTED)
    return found if isinstance(found, Admitted) else Admitted()


def _renewing(scope: Scope, send: Send, session: Session, sessions: Sessions) -> Send:
    """Send the cookie anew, once a day, with its new end."""

    async def renewing(message: Message) -> None:
        if message["type"] == "http.response.start" and sessions.renewed(session) is not None:
            set_cookie(HTTPConnection(scope), MutableHeaders(scope=message), sessions)
        await send(message)

    return renewing


def _until_ended(receive: Receive, send: Send, session: Session, sessions: Sessions) -> Receive:
    """Close the WebSocket when the session ends, and tell the endpoint that its client has gone."""

    async def receiving() -> Message:
        message = await _first(receive(), _end_of(session, sessions))
        if message is not None:
            return message
        with suppress(RuntimeError):  # it is closed already
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "this browser is signed out"})
        return {"type": "websocket.disconnect", "code": POLICY_VIOLATION}

    return receiving


async def _end_of(session: Session, sessions: Sessions) -> None:
    """Wait until a session is over: signed out, or unused for too long."""
    while remaining_s := sessions.remaining_s(session):
        with suppress(TimeoutError):
            await asyncio.wait_for(session.ended.wait(), remaining_s)


async def _first(message: Awaitable[Message], end: Awaitable[None]) -> Message | None:
    """Return the message, or None when the end comes before it."""
    tasks = (asyncio.ensure_future(message), asyncio.ensure_future(end))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
