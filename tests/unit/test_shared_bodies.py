"""What a request's body may hold is counted before anybody parses it, and it has to come in time."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import Request
from starlette.types import Message, Receive, Scope, Send

from shared.kernel.errors import ErrorBody
from shared.service import bodies
from shared.service.bodies import LARGE, SMALL, BodyLimit, BodySize
from shared.service.http import make_app

TINY = BodySize(n_bytes=100, n_values=10)


def client(larger: dict[str, BodySize]) -> httpx.AsyncClient:
    app = make_app("bodies", "0", None, larger_bodies=larger)

    @app.post("/{path:path}")
    async def read(request: Request) -> int:
        return len(await request.body())

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 7):
        yield body[start : start + 7]


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        (b"x" * 100, True), (b"x" * 101, False), (b"[" + b"0," * 8 + b"0]", True), (b"[" + b"0," * 10 + b"0]", False),
        (b"[]" * 11, False), (b"{}" * 11, False),
    ],
)  # fmt: skip
async def test_bytes_and_values_at_their_edge(body: bytes, fits: bool) -> None:
    async with client({"/": TINY}) as asking:
        for content in (body, pieces(body)):
            answer = await asking.post("/", content=content)
            assert answer.status_code == (200 if fits else 413), answer.text
            if not fits:
                assert "100 bytes and 10 values" in ErrorBody.model_validate(answer.json()).error.message


async def test_only_the_named_paths_may_have_more() -> None:
    async with client({"/v1/jobs/": LARGE}) as asking:
        body = b" " * (SMALL.n_bytes + 1)
        assert (await asking.post("/v1/jobs/x", content=body)).status_code == 200
        assert (await asking.post("/v1/jobsx", content=body)).status_code == 413


async def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.05)
    app = make_app("bodies", "0", None)

    @app.post("/")
    async def read(request: Request) -> int:
        return len(await request.body())

    sent: list[Message] = []
    waiting: asyncio.Queue[Message] = asyncio.Queue()
    waiting.put_nowait({"type": "http.request", "body": b"1", "more_body": True})

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b"", "client": ("x", 1)}
    await app(scope, waiting.get, send)
    assert sent[0]["status"] == 408


async def test_after_the_body_a_listener_may_wait_as_long_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A streamed answer listens for the client's going away, with the same function."""
    monkeypatch.setattr(bodies, "BODY_S", 0.05)
    told: list[str] = []
    came: asyncio.Queue[Message] = asyncio.Queue()
    came.put_nowait({"type": "http.request", "body": b"1", "more_body": False})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        told.append((await receive())["type"])
        told.append((await receive())["type"])

    async def leave() -> None:
        await asyncio.sleep(0.2)
        came.put_nowait({"type": "http.disconnect"})

    leaving = asyncio.create_task(leave())
    await BodyLimit(app)({"type": "http", "path": "/", "headers": []}, came.get, came.put)
    await leaving
    assert told == ["http.request", "http.disconnect"]
