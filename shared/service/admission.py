"""Who may enter a service with what: the bearer token anything, a signed-in browser what its own page asks.

| comes with | enters |
|---|---|
| `Authorization: Bearer TOKEN` | everything; cookies are not looked at |
| `Authorization: Bearer CODE` | `POST /v1/session` alone, once (a sign-in code) |
| the cookie of a session | what a page of this origin asks; what changes something also needs the form token |
| nothing | everything, where the service has no token (loopback only), but for pages of other origins |

A browser sends cookies with whatever any page asks, and pages of another port of this machine are of the same "site":
so a request with a cookie must say where it comes from. WebSockets from pages of other origins never enter.
Not here: what a session is (`shared.service.sessions`), who is asked when (`shared.service.guard`).
"""

import hmac
import re
from dataclasses import dataclass
from typing import Final

from starlette.requests import HTTPConnection

from shared.kernel.errors import AuthError, ForgedRequestError, TooManyFailuresError
from shared.service.auth import FailureLimiter
from shared.service.sessions import FORM_HEADER, Session, Sessions, form_token

SIGN_IN: Final = ("POST", "/v1/session")
"""The one request that a sign-in code opens."""
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Admitted:
    """Someone who may enter: with a session where that is what let them in."""

    session: Session | None = None


class Admission:
    """The rules of one service; with `token` None it is open to this machine (loopback only, see `check_bind`)."""

    def __init__(
        self, token: str | None, sessions: Sessions | None = None, limiter: FailureLimiter | None = None
    ) -> None:
        self._token = token
        self._sessions = sessions
        self._failures = limiter or FailureLimiter()

    def __call__(self, connection: HTTPConnection) -> Admitted:
        """Let a request in.

        The right token is always let in: only further wrong ones are slowed down, so that nobody locks the owner out.

        Raises:
            AuthError: its credentials are missing, wrong or over.
            TooManyFailuresError: wrong, and this address was wrong too often lately.
            ForgedRequestError: a page of another origin asks, or the form token is missing.
        """
        if connection.scope["type"] == "websocket" or self._token is None:
            _refuse_other_origins(connection)
        if self._token is None:
            _refuse_other_hosts(connection)
            return Admitted()
        if self._sessions is not None and "authorization" not in connection.headers:
            cookies = cookies_of(connection, self._sessions)
            for cookie in cookies:
                if (session := self._sessions.find(cookie)) is not None:
                    _refuse_forged(connection, cookie)
                    return Admitted(session)
            if cookies:  # not counted as a wrong token: an old page asks until somebody looks at it
                raise AuthError("this browser is signed out", where=connection.url.path, hint="sign in again")
        self._check_bearer(connection, self._token)
        return Admitted()

    def _check_bearer(self, connection: HTTPConnection, token: str) -> None:
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        given = given.strip()
        if scheme.lower() == "bearer":
            if hmac.compare_digest(given.encode(), token.encode()):
                return
            asked = (connection.scope.get("method"), connection.scope["path"])
            if asked == SIGN_IN and self._sessions is not None and self._sessions.redeem(given):
                return
        address = connection.client.host if connection.client is not None else "unknown"
        if self._failures.blocked(address):
            raise TooManyFailuresError("too many failed attempts", where=address, hint="wait a minute")
        self._failures.failed(address)
        raise AuthError(
            "missing or wrong bearer token", where=connection.url.path, hint="send 'Authorization: Bearer TOKEN'"
        )


def cookie_name(connection: HTTPConnection, sessions: Sessions) -> str:
    """Return the name of the cookie; over TLS one that browsers take from this host alone (RFC 6265bis, 4.1.3.2)."""
    return f"__Host-{sessions.cookie_name}" if is_secure(connection) else sessions.cookie_name


def is_secure(connection: HTTPConnection) -> bool:
    """Tell whether the browser asks over TLS, as far as the service or a proxy that is believed knows."""
    return connection.scope.get("scheme") in ("https", "wss")


def cookies_of(connection: HTTPConnection, sessions: Sessions) -> list[str]:
    """Return the values of the session's cookie: a browser may send more than one."""
    name = cookie_name(connection, sessions)
    pairs = (
        pair.strip().partition("=") for header in connection.headers.getlist("cookie") for pair in header.split(";")
    )
    return [value for found, _, value in pairs if found == name and value]


def _refuse_forged(connection: HTTPConnection, cookie: str) -> None:
    """Refuse what another origin's page may have asked with a cookie that is not its own."""
    is_socket = connection.scope["type"] == "websocket"
    changes = not is_socket and connection.scope["method"] not in _READING
    site = connection.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin" and (changes or site != "none"):  # none: typed, or a bookmark
        raise _forged(connection, f"a {site} request")
    _refuse_other_origins(connection, must_be_said=is_socket or changes)
    if changes and not hmac.compare_digest(
        connection.headers.get(FORM_HEADER, "").encode(), form_token(cookie).encode()
    ):
        raise ForgedRequestError(
            "a signed-in browser has to send its form token", where=connection.url.path,
            hint=f"send the header {FORM_HEADER} with `form_token` of GET /v1/session",
        )  # fmt: skip


def _refuse_other_origins(connection: HTTPConnection, *, must_be_said: bool = False) -> None:
    origin = connection.headers.get("origin")
    if origin is None:
        if must_be_said:
            raise _forged(connection, "a request that does not say its origin")
        return
    scheme, _, host = origin.lower().partition("://")
    if not host or host != connection.headers.get("host", "").lower() or (is_secure(connection) and scheme != "https"):
        raise _forged(connection, f"a page of {origin[:100]}")


def _refuse_other_hosts(connection: HTTPConnection) -> None:
    """Where there is no token, a stranger's host name that points to this machine would be an origin like our own."""
    host = connection.headers.get("host", "").lower()
    name = re.sub(r":[0-9]*$", "", host)
    if name in ("", "localhost", "[::1]") or re.fullmatch(r"127\.[0-9.]+", name):
        return
    raise _forged(connection, f"a page of {host[:100]}")


def _forged(connection: HTTPConnection, what: str) -> ForgedRequestError:
    return ForgedRequestError(
        f"{what} is not let in", where=connection.url.path,
        hint="programs send 'Authorization: Bearer TOKEN'; a proxy has to pass the header Host on",
    )  # fmt: skip
