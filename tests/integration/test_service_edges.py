"""What a stranger on the network can do to a service: nothing that its owner would notice.

A real daemon, the meter bridge without a meter; the other services are served by the same function.
"""

import asyncio
import json
import resource
import socket
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from shared.service.connections import HEAD_S, IDLE_S, MAX_CONNECTIONS, MAX_HEAD_BYTES
from tests.support.bridge_daemon import TOKEN, BridgeDaemon, bridge_daemon
from tests.support.certificates import make_certificates

OWNER = {"Authorization": f"Bearer {TOKEN}"}
MIB = 1 << 20


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeDaemon]:
    with bridge_daemon(tmp_path_factory.mktemp("bridge")) as one:
        yield one


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Let this process open more than a thousand sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def url_of(bridge: BridgeDaemon) -> str:
    return f"http://127.0.0.1:{bridge.port}"


def connect(bridge: BridgeDaemon) -> socket.socket:
    return socket.create_connection(("127.0.0.1", bridge.port), timeout=10)


def answer_of(one: socket.socket) -> bytes:
    """Read until the service closes the connection or the head of its answer is there."""
    read = b""
    while b"\r\n\r\n" not in read and (part := one.recv(4096)):
        read += part
    return read


async def ask_as_owner(bridge: BridgeDaemon, seconds: float, verify: ssl.SSLContext | None = None) -> list[float]:
    """Ask for the health again and again, each time on a new connection; return how long each answer took, in s.

    Less the time for which the service or this process could have run and the machine ran others: what else happens on
    the machine is none of the attack. At least ten answers, however slow the machine is.
    """
    took: list[float] = []
    scheme = "http" if verify is None else "https"
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(took) < 10:
        began, waited_s = time.monotonic(), waited_for_a_cpu_s(bridge)
        async with httpx.AsyncClient(timeout=60, headers=OWNER, verify=verify or True) as client:
            assert (await client.get(f"{scheme}://127.0.0.1:{bridge.port}/v1/health")).status_code == 200
        took.append(time.monotonic() - began - (waited_for_a_cpu_s(bridge) - waited_s))
        await asyncio.sleep(0.1)
    return took


def waited_for_a_cpu_s(bridge: BridgeDaemon) -> float:
    """Return how long the service's event loop and this process's have stood in a run queue (proc(5), schedstat)."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) for pid in (bridge.process.pid, "self")) / 1e9


@contextmanager
def slow_connections(bridge: BridgeDaemon, number: int, first: bytes) -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    try:
        for _ in range(number):
            opened.append(one := connect(bridge))
            one.sendall(first)
        yield opened
    finally:
        for one in opened:
            one.close()


@pytest.mark.parametrize("announced", ["length", "chunks"])
async def test_a_stranger_s_body_is_not_read(bridge: BridgeDaemon, announced: str) -> None:
    body = b"[" + b"[]," * (21 * MIB) + b"0]"
    before = bridge.process.memory_info().rss
    async with httpx.AsyncClient(timeout=60) as client:
        given = body if announced == "length" else _pieces(body)
        asking = asyncio.create_task(client.post(f"{url_of(bridge)}/v1/calibrations", content=given))
        took = await ask_as_owner(bridge, 2)
        assert (await asking).status_code == 401
    assert max(took) < 2
    assert bridge.process.memory_info().rss - before < 50 * MIB


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), MIB):
        yield body[start : start + MIB]


def test_the_refusal_comes_before_the_body(bridge: BridgeDaemon) -> None:
    with closing(connect(bridge)) as one:
        one.sendall(b"POST /v1/calibrations HTTP/1.1\r\nHost: x\r\nContent-Length: 64000000\r\n\r\n")
        assert answer_of(one).startswith(b"HTTP/1.1 401")


def test_the_owner_s_body_is_limited_in_bytes_and_values(bridge: BridgeDaemon) -> None:
    with httpx.Client(base_url=url_of(bridge), headers=OWNER, timeout=30) as client:
        for body in (b" " * (MIB + 1), b"[" + b"[]," * 60_000 + b"0]"):
            refused = client.post("/v1/calibrations", content=body)
            assert refused.status_code == 413, refused.text
            assert "at most" in refused.json()["error"]["message"]


SLOW = {
    "idle": b"",
    "half a head": b"GET / HTTP/1.1\r\nX-Slow: ",
    "half a body": b"POST /v1/calibrations HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n[",
    "unread answers": b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100,
}


@pytest.mark.parametrize("first", SLOW.values(), ids=SLOW)
async def test_1024_slow_connections_cost_the_owner_nothing(bridge: BridgeDaemon, first: bytes) -> None:
    with slow_connections(bridge, 1024, first):
        took = await ask_as_owner(bridge, 4)
        assert bridge.process.num_fds() < MAX_CONNECTIONS + 64
    print(f"\n{len(took)} answers: median {statistics.median(took):.3f} s, longest {max(took):.3f} s")
    assert max(took) < 3


async def test_what_is_being_answered_makes_room_for_nobody(bridge: BridgeDaemon) -> None:
    """An owner's request of which the body is still coming outlives 1,024 strangers."""
    body = b'{"name": "x"}'
    with closing(connect(bridge)) as one:
        head = f"POST /v1/calibrations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        one.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        await ask_as_owner(bridge, 1)  # an answer to a later request: this one's head was read
        with slow_connections(bridge, 1024, b""):
            await asyncio.sleep(0.5)
            one.sendall(body)
            assert answer_of(one).startswith(b"HTTP/1.1 422")


async def test_connections_that_never_ask_are_closed(bridge: BridgeDaemon) -> None:
    """Also those that send a byte now and then."""
    with slow_connections(bridge, 20, b"GET / HT") as opened:
        began = time.monotonic()
        left = opened
        while left and time.monotonic() < began + 3 * HEAD_S:
            await asyncio.sleep(0.5)
            left = [one for one in left if _still_takes(one, b"T")]
        took = time.monotonic() - began
    assert not left
    assert HEAD_S - 2 < took < 2 * HEAD_S


def _still_takes(one: socket.socket, byte: bytes) -> bool:
    one.setblocking(False)
    try:
        one.send(byte)
        return one.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_a_kept_connection_is_closed_when_nothing_more_is_asked(bridge: BridgeDaemon) -> None:
    with closing(connect(bridge)) as one:
        one.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
        one.settimeout(2 * IDLE_S + 5)
        while one.recv(65536):
            pass


def test_a_head_without_end_is_refused(bridge: BridgeDaemon) -> None:
    with closing(connect(bridge)) as one:
        one.sendall(b"GET / HTTP/1.1\r\nX-Long: " + b"x" * (2 * MAX_HEAD_BYTES))
        assert answer_of(one).startswith(b"HTTP/1.1 400")


async def test_handshakes_that_never_end_cost_the_owner_nothing(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    tls = f'tls_cert = "{tmp_path}/server.pem"\ntls_key = "{tmp_path}/server.key"'
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with bridge_daemon(tmp_path, tls) as bridge:
        before = bridge.process.num_fds()
        with slow_connections(bridge, 1024, b"\x16\x03\x01"):
            took = await ask_as_owner(bridge, 4, trusted)
            await asyncio.sleep(HEAD_S)
            assert bridge.process.num_fds() < before + 10, "they are still there"
    assert max(took) < 3


def test_nobody_is_somebody_else_by_a_header(tmp_path: Path) -> None:
    with bridge_daemon(tmp_path) as bridge, httpx.Client(base_url=url_of(bridge)) as client:
        answers = [
            client.get("/v1/health", headers={"Authorization": "Bearer wrong", "X-Forwarded-For": f"10.0.0.{number}"})
            for number in range(30)
        ]
        assert [answer.status_code for answer in answers] == [401] * 20 + [429] * 10
        assert {line["client"] for line in audit_of(bridge)} == {"127.0.0.1"}


def test_a_proxy_that_the_owner_named_is_believed(tmp_path: Path) -> None:
    with (
        bridge_daemon(tmp_path, 'trusted_proxies = ["127.0.0.0/8"]') as bridge,
        httpx.Client(base_url=url_of(bridge)) as client,
    ):
        client.get("/v1/health", headers={"X-Forwarded-For": "10.0.0.7"})
        assert [line["client"] for line in audit_of(bridge)] == ["10.0.0.7"]


def test_refusals_do_not_wash_the_audit_log_away(tmp_path: Path) -> None:
    with bridge_daemon(tmp_path) as bridge, httpx.Client(base_url=url_of(bridge)) as client:
        for _ in range(200):
            client.get(f"/v1/{'x' * 8000}", headers={"Authorization": "Bearer wrong"})
        client.post("/v1/nothing", headers=OWNER)
        lines = audit_of(bridge)
    assert len([line for line in lines if line["status"] in (401, 429)]) == 20
    assert lines[-1]["status"] == 404
    assert bridge.audit_file.stat().st_size < 20_000


def audit_of(bridge: BridgeDaemon) -> list[dict[str, object]]:
    return [json.loads(line) for line in bridge.audit_file.read_text().splitlines()]
