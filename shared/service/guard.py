"""The guard at the door of a service: nothing of a request is read before its token was seen.

Every path is guarded but those that a service names open. Not here: what a right token is (`shared.service.auth`).
"""

from collections.abc import Callable, Iterable

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.kernel.errors import AuthError
from shared.service.connections import LET_IN
from shared.service.error_answers import POLICY_VIOLATION, close_reason, error_response


class TokenGuard:
    """ASGI middleware that refuses HTTP requests and WebSockets whose credentials are missing or wrong."""

    def __init__(self, app: ASGIApp, check: Callable[[HTTPConnection], None], open_paths: Iterable[str]) -> None:
        """`check` raises AuthError; an open path that ends in `/` opens everything below it."""
        self._app = app
        self._check = check
        self._open = frozenset(path for path in open_paths if not path.endswith("/") or path == "/")
        self._open_below = tuple(path for path in open_paths if path.endswith("/") and path != "/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 or 429 without looking at its body."""
        if scope["type"] in ("http", "websocket") and not self._is_open(scope["path"]):
            try:
                self._check(HTTPConnection(scope))
            except AuthError as error:
                if scope["type"] == "websocket":
                    await send(
                        {"type": "websocket.close", "code": POLICY_VIOLATION, "reason": close_reason(error.message)}
                    )
                else:
                    await error_response(error.http_status, error.to_payload())(scope, receive, send)
                return
            scope[LET_IN] = True
        await self._app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in self._open or path.startswith(self._open_below)
