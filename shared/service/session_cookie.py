"""The cookie of a signed-in browser: out of reach for scripts and other sites, and gone when its session is over."""

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection

from shared.service.admission import cookie_name, cookies_of, is_secure
from shared.service.sessions import IDLE_S, Sessions

_ALWAYS: Final = "Path=/; HttpOnly; SameSite=Strict"


def set_cookie(
    connection: HTTPConnection, headers: MutableHeaders, sessions: Sessions, value: str | None = None
) -> None:
    """Add the cookie to an answer; without `value` the one that the request came with, for longer."""
    if value is None:
        value = next((cookie for cookie in cookies_of(connection, sessions) if sessions.find(cookie)), None)
    if value is not None:
        headers.append("set-cookie", _written(connection, sessions, value, int(IDLE_S)))


def clear_cookie(connection: HTTPConnection, headers: MutableHeaders, sessions: Sessions) -> None:
    """Tell the browser to forget the cookie."""
    headers.append("set-cookie", _written(connection, sessions, "", 0))


def _written(connection: HTTPConnection, sessions: Sessions, value: str, max_age_s: int) -> str:
    secure = "; Secure" if is_secure(connection) else ""
    return f"{cookie_name(connection, sessions)}={value}; Max-Age={max_age_s}; {_ALWAYS}{secure}"
