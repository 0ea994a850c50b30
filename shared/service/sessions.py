"""Signed-in browsers: a session each, known by a cookie; it ends by itself, by signing out, and with the token.

A browser brings the token, or a sign-in code that was made with it, once; from then on the cookie stands for it. Kept
are only hashes of the cookies, as text that survives a restart: who reads it gains nothing. Another token ends all
sessions. Not here: who may enter with what (`shared.service.admission`), the endpoints (`shared.wire.session_api`).
"""

import asyncio
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

log = logging.getLogger(__name__)

IDLE_S: Final = 7 * 86_400.0
"""A session that is not used so long ends."""
LONGEST_S: Final = 90 * 86_400.0
"""And so long after signing in it ends in any case."""
CODE_S: Final = 3600.0
"""A sign-in code works once, and so long after it was made at most."""
FORM_HEADER: Final = "x-epi-form-token"
"""Header of requests that change something: only a page of this very origin can read its value and send it."""
_RENEW_AFTER_S: Final = 86_400.0
"""The cookie is sent anew, and its use written down, once a day."""
_MOST: Final = 64


@dataclass(frozen=True)
class Session:
    """One signed-in browser."""

    digest: str
    """SHA-256 of the cookie's value."""
    opened_s: float
    used_s: float
    """Unix times; `used_s` moves once a day."""
    ended: asyncio.Event = field(default_factory=asyncio.Event, compare=False)
    """Set when it is signed out: feeds that are open under it close."""

    @property
    def until_s(self) -> float:
        """When it ends if it is not used."""
        return min(self.used_s + IDLE_S, self.opened_s + LONGEST_S)


class Sessions:
    """The sessions of one service; at most 64, then the one that was used longest ago ends."""

    def __init__(
        self, token: str, kept: str = "", keep: Callable[[str], None] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """Take up the sessions in `kept`, what `keep` was given last; those of another token are over.

        A `keep` that raises OSError or an EpiError is logged: the sessions then last until the next restart.
        """
        tag = hashlib.sha256(b"sessions of " + token.encode()).hexdigest()
        self._tag = tag
        self.cookie_name = f"epi-session-{tag[:8]}"
        """A name of its own for each lab: cookies do not know ports, and two labs may run on one machine."""
        self._keep = keep
        self._now = now
        self._codes: dict[str, float] = {}
        self._sessions = _read(kept, tag)

    def make_code(self) -> str:
        """Return a code that opens one session within the next hour."""
        self._codes = {digest: until for digest, until in self._codes.items() if until > self._now()}
        if len(self._codes) >= _MOST:
            self._codes.pop(next(iter(self._codes)))
        code = secrets.token_urlsafe(24)
        self._codes[_digest(code)] = self._now() + CODE_S
        return code

    def redeem(self, code: str) -> bool:
        """Use a code up; False when it is unknown, used or too old."""
        return self._codes.pop(_digest(code), 0.0) > self._now()

    def open(self) -> tuple[str, Session]:
        """Begin a session and return the value of its cookie with it."""
        cookie = secrets.token_urlsafe(32)
        session = Session(_digest(cookie), self._now(), self._now())
        self._forget_ended()
        while len(self._sessions) >= _MOST:
            self.end(min(self._sessions.values(), key=lambda one: one.used_s))
        self._sessions[session.digest] = session
        self._write_down()
        return cookie, session

    def find(self, cookie: str) -> Session | None:
        """Return the session of a cookie, or None when it is over or there never was one."""
        session = self._sessions.get(_digest(cookie))
        return session if session is not None and session.until_s > self._now() else None

    def renewed(self, session: Session) -> Session | None:
        """Note that a session is used; return it with its new end when its cookie is to be sent anew."""
        if session.digest not in self._sessions or self._now() - session.used_s < _RENEW_AFTER_S:
            return None
        session = replace(session, used_s=self._now())
        self._sessions[session.digest] = session
        self._write_down()
        return session

    def remaining_s(self, session: Session) -> float:
        """Return how long a session will last if it is not used; 0 when it is over."""
        known = self._sessions.get(session.digest)
        return 0.0 if known is None else max(0.0, known.until_s - self._now())

    def end(self, session: Session) -> None:
        """Sign one browser out; what it has open closes."""
        if (known := self._sessions.pop(session.digest, None)) is not None:
            known.ended.set()
            self._write_down()

    def end_all(self) -> int:
        """Sign every browser out, forget the codes too, and return how many sessions that were."""
        self._forget_ended()
        ended, self._sessions = self._sessions, {}
        self._codes = {}
        for session in ended.values():
            session.ended.set()
        self._write_down()
        return len(ended)

    def _forget_ended(self) -> None:
        self._sessions = {one.digest: one for one in self._sessions.values() if one.until_s > self._now()}

    def _write_down(self) -> None:
        sessions = [[one.digest, one.opened_s, one.used_s] for one in self._sessions.values()]
        try:
            self._keep(json.dumps({"token": self._tag, "sessions": sessions}))
        except Exception as error:  # the disk is full, or the folder is gone: nobody is locked out for that
            log.warning("the sessions of signed-in browsers cannot be written down: %s", error)


def form_token(cookie: str) -> str:
    """Return what a signed-in page sends in `FORM_HEADER`: made from its cookie, which no script can read."""
    return hmac.new(cookie.encode(), b"form token", hashlib.sha256).hexdigest()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _read(kept: str, tag: str) -> dict[str, Session]:
    """Return the sessions that were written down under this token; what is damaged is as if it were not there."""
    try:
        found = json.loads(kept) if kept else {}
        if found.get("token") != tag:
            return {}
        sessions = [Session(str(digest), float(opened), float(used)) for digest, opened, used in found["sessions"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("the sessions of signed-in browsers cannot be read, all are over: %s", error)
        return {}
    return {one.digest: one for one in sessions}
