"""Sessions of signed-in browsers: how they end, what is written down, and whose requests a cookie lets in."""

import json

import pytest
from starlette.requests import HTTPConnection

from shared.kernel.errors import AuthError, ForgedRequestError
from shared.service.admission import Admission
from shared.service.sessions import CODE_S, FORM_HEADER, IDLE_S, LONGEST_S, Sessions, form_token

TOKEN = "t" * 43
HOST = "lab:8600"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1e9

    def __call__(self) -> float:
        return self.now_s


def test_a_session_ends_when_it_is_not_used_and_in_any_case_after_ninety_days() -> None:
    clock = Clock()
    sessions = Sessions(TOKEN, now=clock)
    cookie, _ = sessions.open()
    clock.now_s += IDLE_S + 1
    assert sessions.find(cookie) is None
    cookie, session = sessions.open()
    for _ in range(int(LONGEST_S // 86_400) - 1):
        clock.now_s += 86_400
        found = sessions.find(cookie)
        assert found is not None
        sessions.renewed(found)
    clock.now_s += 86_400
    assert sessions.find(cookie) is None
    assert sessions.remaining_s(session) == 0


def test_a_code_opens_once_and_within_an_hour() -> None:
    clock = Clock()
    sessions = Sessions(TOKEN, now=clock)
    code, late = sessions.make_code(), sessions.make_code()
    assert sessions.redeem(code)
    assert not sessions.redeem(code)
    clock.now_s += CODE_S + 1
    assert not sessions.redeem(late)


def test_sessions_outlive_a_restart_and_not_another_token_nor_a_damaged_file() -> None:
    kept: list[str] = []
    first = Sessions(TOKEN, keep=kept.append)
    cookie, session = first.open()
    assert cookie not in kept[-1] and TOKEN not in kept[-1]
    assert Sessions(TOKEN, kept[-1]).find(cookie) == session
    assert Sessions("another", kept[-1]).find(cookie) is None
    damaged = ["{", "[]", "null", json.dumps({"token": json.loads(kept[-1])["token"], "sessions": [1]})]
    assert all(Sessions(TOKEN, text).find(cookie) is None for text in damaged)
    first.end(session)
    assert session.ended.is_set()
    assert Sessions(TOKEN, kept[-1]).find(cookie) is None


def test_a_full_disk_locks_nobody_out() -> None:
    def full(_: str) -> None:
        raise OSError(28, "No space left on device")

    sessions = Sessions(TOKEN, keep=full)
    cookie, _ = sessions.open()
    assert sessions.find(cookie) is not None


def test_they_are_bounded_and_all_end_together() -> None:
    sessions = Sessions(TOKEN)
    opened = [sessions.open() for _ in range(100)]
    assert sum(sessions.find(cookie) is not None for cookie, _ in opened) == 64
    code = sessions.make_code()
    assert sessions.end_all() == 64
    assert all(session.ended.is_set() for _, session in opened)
    assert not sessions.redeem(code)


def asks(
    method: str = "GET", path: str = "/v1/campaigns", *, socket: bool = False, scheme: str = "http", **headers: str
) -> HTTPConnection:
    given = {"host": HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return HTTPConnection(
        {
            "type": "websocket" if socket else "http", "method": method, "path": path, "query_string": b"",
            "scheme": scheme, "client": ("10.0.0.1", 1), "server": None,
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }
    )  # fmt: skip


OWN, FOREIGN = f"http://{HOST}", "http://lab:9999"


@pytest.mark.parametrize(
    ("method", "socket", "headers", "enters"),
    [
        ("GET", False, {}, True),
        ("GET", False, {"sec_fetch_site": "same-origin"}, True),
        ("GET", False, {"sec_fetch_site": "none"}, True),  # an address that somebody typed
        ("GET", False, {"sec_fetch_site": "same-site"}, False),  # another port of this machine
        ("GET", False, {"sec_fetch_site": "cross-site"}, False),
        ("GET", False, {"origin": FOREIGN}, False),
        ("POST", False, {"origin": OWN, "form": "own"}, True),
        ("POST", False, {"origin": OWN, "form": "own", "sec_fetch_site": "same-origin"}, True),
        ("POST", False, {"origin": OWN.upper(), "form": "own"}, True),
        ("POST", False, {"origin": OWN, "form": "own", "sec_fetch_site": "none"}, False),
        ("POST", False, {"origin": OWN, "form": "own", "sec_fetch_site": "same-site"}, False),
        ("POST", False, {"origin": OWN}, False),
        ("POST", False, {"origin": OWN, "form": "wrong"}, False),
        ("POST", False, {"form": "own"}, False),
        ("POST", False, {"origin": FOREIGN, "form": "own"}, False),
        ("POST", False, {"origin": "null", "form": "own"}, False),
        ("DELETE", False, {"origin": "http://lab.evil.example:8600", "form": "own"}, False),
        ("PUT", False, {"origin": f"https://{HOST}.evil.example", "form": "own"}, False),
        ("", True, {"origin": OWN}, True),
        ("", True, {"origin": FOREIGN}, False),
        ("", True, {}, False),
    ],
)
def test_a_cookie_lets_in_what_its_own_page_asks(
    method: str, socket: bool, headers: dict[str, str], enters: bool
) -> None:
    sessions = Sessions(TOKEN)
    admission = Admission(TOKEN, sessions)
    cookie, session = sessions.open()
    forms = {"own": form_token(cookie), "wrong": form_token("another")}
    headers = {FORM_HEADER if name == "form" else name: forms.get(value, value) for name, value in headers.items()}
    request = asks(method, socket=socket, cookie=f"theme=dark; {sessions.cookie_name}={cookie}", **headers)
    if enters:
        assert admission(request).session == session
    else:
        with pytest.raises(ForgedRequestError):
            admission(request)


def test_over_tls_only_the_cookie_counts_that_no_plain_page_can_set_and_only_a_secure_origin() -> None:
    sessions = Sessions(TOKEN)
    admission = Admission(TOKEN, sessions)
    cookie, session = sessions.open()
    hardened = f"__Host-{sessions.cookie_name}={cookie}"
    assert admission(asks(scheme="https", cookie=hardened)).session == session
    with pytest.raises(ForgedRequestError):
        admission(asks(scheme="wss", socket=True, cookie=hardened, origin=OWN))
    for refused in (asks(scheme="https", cookie=f"{sessions.cookie_name}={cookie}"), asks(cookie=hardened)):
        with pytest.raises(AuthError):
            admission(refused)


def test_a_code_opens_nothing_but_a_session_and_a_bearer_header_is_judged_alone() -> None:
    sessions = Sessions(TOKEN)
    admission = Admission(TOKEN, sessions)
    cookie, _ = sessions.open()
    code = sessions.make_code()
    for method, path in (("GET", "/v1/session"), ("POST", "/v1/campaigns"), ("POST", "/v1/session/codes")):
        with pytest.raises(AuthError):
            admission(asks(method, path, authorization=f"Bearer {code}"))
    admission(asks("POST", "/v1/session", authorization=f"Bearer {code}"))
    with pytest.raises(AuthError):
        admission(asks("POST", "/v1/session", authorization=f"Bearer {code}"))
    with pytest.raises(AuthError):
        admission(asks(cookie=f"{sessions.cookie_name}={cookie}", authorization="Bearer wrong"))
    assert admission(asks("POST", authorization=f"Bearer {TOKEN}")).session is None


def test_an_old_page_that_asks_again_and_again_is_signed_out_and_not_slowed_down() -> None:
    sessions = Sessions(TOKEN)
    admission = Admission(TOKEN, sessions)
    for _ in range(50):
        with pytest.raises(AuthError, match="signed out"):
            admission(asks(cookie=f"{sessions.cookie_name}=over"))


@pytest.mark.parametrize(
    ("headers", "enters"),
    [
        ({"host": "127.0.0.1:8600"}, True),
        ({"host": "localhost:8600", "origin": "http://localhost:8600"}, True),
        ({"host": "[::1]:8600"}, True),
        ({"host": "rebound.example:8600", "origin": "http://rebound.example:8600"}, False),
        ({"host": "127.evil.example"}, False),
        ({"host": "127.0.0.1:8600", "origin": "http://evil.example"}, False),
    ],
)
def test_without_a_token_no_other_site_comes_in_by_a_browser_of_this_machine(
    headers: dict[str, str], enters: bool
) -> None:
    for socket in (False, True):
        request = asks("POST", socket=socket, **headers)
        if enters:
            Admission(None)(request)
        else:
            with pytest.raises(ForgedRequestError):
                Admission(None)(request)
