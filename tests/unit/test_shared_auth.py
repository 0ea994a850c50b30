"""The bearer token at the guard: constant refusal, bounded memory, and the owner is never locked out."""

import pytest
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from shared.kernel.errors import AuthError, ConfigurationError, TooManyFailuresError
from shared.service.admission import Admission
from shared.service.auth import FailureLimiter, check_bind
from shared.service.guard import TokenGuard


def request(token: str | None, host: str = "10.0.0.1") -> HTTPConnection:
    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    return HTTPConnection(
        {
            "type": "http",
            "method": "GET",
            "headers": headers,
            "client": (host, 1),
            "path": "/v1/x",
            "query_string": b"",
            "server": None,
        }
    )


def test_wrong_tokens_are_refused_then_slowed_down_but_the_right_one_enters() -> None:
    now = [0.0]
    guard = Admission("right", limiter=FailureLimiter(limit=3, window_s=60, now=lambda: now[0]))
    for _ in range(3):
        with pytest.raises(AuthError):
            guard(request("wrong"))
    with pytest.raises(TooManyFailuresError):
        guard(request(None))
    guard(request("right"))
    with pytest.raises(AuthError, match="missing or wrong"):
        guard(request("wrong", host="10.0.0.2"))
    now[0] = 61.0
    with pytest.raises(AuthError, match="missing or wrong"):
        guard(request("wrong"))


def test_the_memory_of_addresses_is_bounded() -> None:
    limiter = FailureLimiter()
    for number in range(5000):
        limiter.failed(str(number))
    assert len(limiter._failures) == 1000


def test_beyond_loopback_needs_a_token() -> None:
    check_bind("127.0.0.1", None)
    check_bind("0.0.0.0", "token")
    with pytest.raises(ConfigurationError, match="beyond loopback"):
        check_bind("192.168.1.2", None)


@pytest.mark.parametrize(
    ("path", "is_open"),
    [
        ("/", True), ("/openapi.json", True), ("/static/x.js", True), ("/static/../v1/x", True),  # a look-up: not found
        ("/v1/x", False), ("/static", False), ("/statics", False), ("//v1/x", False), ("/openapi.json/", False),
        ("", False), ("/nothing", False),
    ],
)  # fmt: skip
async def test_every_path_is_guarded_that_is_not_named_open(path: str, is_open: bool) -> None:
    entered: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        entered.append(scope["path"])

    async def nothing_is_read() -> Message:
        raise AssertionError("the guard read the body")

    async def send(message: Message) -> None:
        sent.append(message)

    guard = TokenGuard(app, Admission("right"), ("/", "/openapi.json", "/static/"))
    for kind, refusal in (("http", "http.response.start"), ("websocket", "websocket.close")):
        sent: list[Message] = []
        scope = {"type": kind, "path": path, "headers": [], "query_string": b"", "client": ("10.0.0.1", 1)}
        await guard(scope, nothing_is_read, send)
        assert (entered[-1:] == [path]) is is_open
        assert [message["type"] for message in sent[:1]] == ([] if is_open else [refusal])
