"""`/v1/session`: a browser brings the token or a sign-in code once, and gets a cookie for it; signing out.

Only services with a page for people have it. The browser's credentials are the guard's matter
(`shared.service.admission`): no endpoint here reads a body.
"""

from fastapi import APIRouter, Request, Response
from pydantic import Field

from shared.kernel.records import Record
from shared.service.admission import cookies_of
from shared.service.guard import admitted_of
from shared.service.session_cookie import clear_cookie, set_cookie
from shared.service.sessions import CODE_S, Session, Sessions, form_token


class BrowserSession(Record):
    """What a page knows of its session; the cookie it does not see."""

    form_token: str = Field(description="for the header X-EPI-Form-Token of requests that change something")
    until_utc_ns: int | None = Field(
        description="when it ends if it is not used; null: this service needs no signing in"
    )


class SignInCode(Record):
    """A code that opens one session."""

    code: str = Field(description="in the place of the token, for `POST /v1/session`; works once")
    expires_in_s: float = CODE_S


class SignedOut(Record):
    """How many browsers were signed out."""

    sessions: int = Field(ge=0)


def session_router(sessions: Sessions | None) -> APIRouter:
    """Return the endpoints; `sessions` is None where the service has no token, and nobody needs to sign in."""
    router = APIRouter(prefix="/v1", tags=["session"])

    @router.post("/session")
    async def sign_in(request: Request, response: Response) -> BrowserSession:
        """Begin a session for who brings the token or a sign-in code; the answer sets its cookie."""
        if sessions is None:
            return BrowserSession(form_token="", until_utc_ns=None)
        for earlier in cookies_of(request, sessions):
            if (known := sessions.find(earlier)) is not None:
                sessions.end(known)
        cookie, session = sessions.open()
        set_cookie(request, response.headers, sessions, cookie)
        return _told(cookie, session)

    @router.get("/session")
    async def present_session(request: Request, response: Response) -> BrowserSession:
        """Tell a page its session, when it is opened again; without one that there is none to end."""
        response.headers["Cache-Control"] = "no-store"
        session = admitted_of(request).session
        if sessions is not None and session is not None:
            for cookie in cookies_of(request, sessions):
                if (known := sessions.find(cookie)) is not None and known.digest == session.digest:
                    return _told(cookie, known)
        return BrowserSession(form_token="", until_utc_ns=None)

    @router.delete("/session")
    async def sign_out(request: Request, response: Response) -> SignedOut:
        """End the session that asks; its cookie is worth nothing any more, what it has open closes."""
        if sessions is None or (session := admitted_of(request).session) is None:
            return SignedOut(sessions=0)
        sessions.end(session)
        clear_cookie(request, response.headers, sessions)
        return SignedOut(sessions=1)

    @router.delete("/sessions")
    async def sign_everybody_out(request: Request, response: Response) -> SignedOut:
        """End the sessions of all browsers, and all sign-in codes."""
        if sessions is None:
            return SignedOut(sessions=0)
        clear_cookie(request, response.headers, sessions)
        return SignedOut(sessions=sessions.end_all())

    @router.post("/session/codes")
    async def make_code() -> SignInCode:
        """Make a code for a link that a browser is opened with: an address is kept in its history, the token not."""
        return SignInCode(code="" if sessions is None else sessions.make_code())

    return router


def _told(cookie: str, session: Session) -> BrowserSession:
    return BrowserSession(form_token=form_token(cookie), until_utc_ns=int(session.until_s * 1e9))
