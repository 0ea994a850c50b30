"""Answers of agents, bridge, orchestrator, plugs and webhooks are read in bounded memory and time, whatever comes."""

import asyncio
import base64
import gzip
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO

import httpx
import pytest

from meter_bridge.cli.remote import Remote
from meter_bridge.sources.plugs import PlugAddress, PlugReader
from orchestrator.cli.api import Api
from orchestrator.notify.notices import Notice
from orchestrator.notify.webhook import WebhookSender
from orchestrator.settings import WebhookSettings
from shared.kernel.errors import (
    AuthError,
    ConfigurationError,
    ConflictError,
    DataError,
    EpiError,
    InfrastructureError,
    NotFoundError,
    TooManyFailuresError,
)
from shared.service.endpoint import Endpoint, ask
from shared.service.health import HealthRegistry
from shared.service.reply import MAX_REPLY_BYTES
from shared.wire.client import AgentClient
from tests.support.raw_server import Speak, gzip_bomb, raw_server, response, saying

BOMB_BYTES = 1_600_000_000
CHUNKED = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"


def bomb(_head: str, out: BinaryIO) -> None:
    out.write(f"{CHUNKED}content-encoding: gzip\r\n\r\n".encode())
    for block in gzip_bomb(BOMB_BYTES):
        out.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
    out.write(b"0\r\n\r\n")


def endless(_head: str, out: BinaryIO) -> None:
    out.write(f"{CHUNKED}\r\n".encode())
    while True:
        out.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


def drip(_head: str, out: BinaryIO) -> None:
    out.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        out.write(b" ")
        out.flush()
        time.sleep(0.05)


def drip_headers(_head: str, out: BinaryIO) -> None:
    out.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        out.write(b"a: b\r\n")
        out.flush()
        time.sleep(0.05)


async def ask_agent(url: str, _tmp: Path) -> None:
    client = AgentClient(url, None)
    try:
        await client.request("GET", "/v1/jobs", patient=False)
    finally:
        await client.close()


async def ask_bridge(url: str, _tmp: Path) -> None:
    client = AgentClient(url, None)
    try:
        await Remote(client).status()
    finally:
        await client.close()


async def ask_orchestrator(url: str, _tmp: Path) -> None:
    await asyncio.to_thread(Api(url, None).call, "GET", "/v1/campaigns")


async def ask_plug(url: str, _tmp: Path) -> None:
    reader = PlugReader((PlugAddress(url=url, dialect="tasmota"),), rate_hz=1)
    await reader.open()
    try:
        await reader.read()
    finally:
        await reader.close()


async def tell_receiver(url: str, tmp: Path) -> None:
    secret = tmp / "secret"
    secret.write_text(base64.b64encode(b"a secret of twenty-four b").decode())
    sender = WebhookSender(WebhookSettings(url=url, secret_file=secret), HealthRegistry())
    async with Endpoint("").client(timeout_s=10) as client:
        notice = Notice(seq=1, timestamp_utc="2026-01-31T12:00:00Z", kind="finished", campaign="c", text="done")
        assert not await sender._deliver(client, notice), "its status says that it accepted"


ASKERS: dict[str, tuple[Callable[[str, Path], Awaitable[None]], int]] = {
    "agent": (ask_agent, MAX_REPLY_BYTES),
    "meter bridge": (ask_bridge, MAX_REPLY_BYTES),
    "orchestrator": (ask_orchestrator, MAX_REPLY_BYTES),
    "plug": (ask_plug, 64 << 10),
    "webhook": (tell_receiver, 0),
}


@pytest.mark.parametrize("speak", [bomb, endless])
@pytest.mark.parametrize("who", ASKERS)
async def test_memory_is_bounded_and_the_error_says_why(who: str, speak: Speak, tmp_path: Path) -> None:
    act, limit = ASKERS[who]
    with raw_server(speak) as url:
        tracemalloc.start()
        try:
            if who == "webhook":
                await act(url, tmp_path)
            else:
                with pytest.raises(DataError, match=f"the answer has more than {limit} bytes") as caught:
                    await act(url, tmp_path)
                assert url in caught.value.where
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 2.5 * limit + (8 << 20), f"{peak >> 20} MiB"


async def test_what_drips_for_ever_is_given_up(tmp_path: Path) -> None:
    for speak in (drip, drip_headers):
        with raw_server(speak) as url:
            begin = time.monotonic()
            with pytest.raises(InfrastructureError, match=r"not whole after 1 s"):
                await ask_plug(url, tmp_path)
            async with Endpoint(url).client() as client:
                with pytest.raises(InfrastructureError, match=r"not whole after 0\.3 s") as caught:
                    await ask(client, "GET", "/v1/facts", within_s=0.3)
            assert caught.value.where == f"GET {url}/v1/facts"
            assert time.monotonic() - begin < 5


async def replied(answer: bytes) -> object:
    with raw_server(saying(answer)) as url:
        async with Endpoint(url, token="t").client() as client:
            return (await ask(client, "GET", "/v1/x")).json()


async def test_compressed_answers_are_read_and_damaged_ones_named() -> None:
    packed = gzip.compress(b'{"a": 1}')
    assert await replied(response("200 OK", packed, content_encoding="gzip")) == {"a": 1}
    for body, encoding, reason in (
        (packed[:-9], "gzip", "cut off"),
        (b"no gzip at all", "gzip", "damaged"),
        (packed, "br", "encoded as 'br'"),
    ):
        with pytest.raises(DataError, match=reason):
            await replied(response("200 OK", body, content_encoding=encoding))


async def test_what_follows_a_small_gzip_is_not_collected() -> None:
    def speak(_head: str, out: BinaryIO) -> None:
        packed = gzip.compress(b"{}")
        out.write(f"{CHUNKED}content-encoding: gzip\r\n\r\n{len(packed):x}\r\n".encode() + packed + b"\r\n")
        while True:
            out.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    with raw_server(speak) as url:
        async with Endpoint(url).client() as client:
            with pytest.raises(DataError, match="something follows the end"):
                await ask(client, "GET", "/v1/x")


async def test_a_success_that_is_no_json_is_an_error_with_a_place() -> None:
    for body in (b"<html>log in first</html>", b"[" * 100_000, b"\xff\xfe"):
        with pytest.raises(DataError, match="the answer is not JSON") as caught:
            await replied(response("200 OK", body))
        assert caught.value.where.startswith("GET http://127.0.0.1:")


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        ("404 Not Found", b'{"error": {"code": "not_found", "fault": "configuration", "message": "no such job", '
                          b'"where": "a/b", "hint": "look again"}}', NotFoundError, "a/b: no such job (look again)"),
        ("503 x", b'{"error": {"code": "later", "fault": "data", "message": "m"}}', DataError, "m"),
        ("502 Bad Gateway", b"<html>\n  nginx </html>", InfrastructureError, "HTTP 502: <html> nginx </html>"),
        ("500 x", b"", InfrastructureError, "HTTP 500"),
        ("500 x", b"y" * 1_000_000, InfrastructureError, "HTTP 500: " + "y" * 200),
        ("302 Found", b"", InfrastructureError, "HTTP 302"),
        ("401 x", b"[]", AuthError, "HTTP 401: []"),
        ("403 x", b'{"error": "no"}', AuthError, 'HTTP 403: {"error": "no"}'),
        ("404 x", b"", NotFoundError, "HTTP 404"),
        ("409 x", b"", ConflictError, "HTTP 409"),
        ("422 x", b"", ConfigurationError, "HTTP 422"),
        ("429 x", b"", TooManyFailuresError, "HTTP 429"),
    ],
)  # fmt: skip
async def test_one_reader_of_errors_for_both_clients(status: str, body: bytes, kind: type[EpiError], text: str) -> None:
    with raw_server(saying(response(status, body))) as url:
        found = []
        for act in (ask_agent, ask_orchestrator):
            with pytest.raises(EpiError) as caught:
                await act(url, Path())
            assert type(caught.value) is kind
            found.append(caught.value)
    assert [error.message for error in found] == [found[0].message] * 2
    assert str(found[0]).endswith(text)


async def test_token_and_address_are_sent_to_the_one_who_is_asked() -> None:
    seen: list[str] = []

    def speak(head: str, out: BinaryIO) -> None:
        seen.append(head)
        out.write(response("200 OK", b"{}"))

    with raw_server(speak) as url:
        async with Endpoint(url, token="secret-token").client() as client:
            await ask(client, "GET", "/v1/x")
    assert "authorization: Bearer secret-token\r\n".lower() in seen[0].lower()
    assert "accept-encoding: gzip\r\n" in seen[0].lower()
    assert "secret-token" not in repr(Endpoint(url, token="secret-token"))


async def test_who_is_away_is_an_infrastructure_error() -> None:
    with pytest.raises(InfrastructureError, match="does not answer"):
        await ask_agent("http://127.0.0.1:9", Path())
    async with Endpoint("http://127.0.0.1:9").client() as client:
        with pytest.raises(httpx.TransportError):
            await ask(client, "GET", "/")
