"""The one resumable download against a real server that keeps its word, or does not."""

import asyncio
import fcntl
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from shared.files.artifacts import ArtifactStore
from shared.files.download import Wanted, download
from shared.kernel.errors import ConflictError, DataError, EpiError, InfrastructureError
from shared.service.endpoint import Endpoint
from tests.support.raw_server import Speak, raw_server, response, saying
from tests.support.small_files import largest_file

CONTENT = bytes(range(256)) * 10_000
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def begin_of(head: str) -> int | None:
    """Return where the range that is asked for begins."""
    match = re.search(r"^range: bytes=(\d+)-\r$", head, re.MULTILINE | re.IGNORECASE)
    return None if match is None else int(match[1])


def honest(head: str, out: BinaryIO) -> None:
    begin = begin_of(head)
    if begin is None:
        out.write(response("200 OK", CONTENT))
    elif begin >= SIZE:
        out.write(response("416 x", b"", content_range=f"bytes */{SIZE}"))
    else:
        out.write(response("206 x", CONTENT[begin:], content_range=f"bytes {begin}-{SIZE - 1}/{SIZE}"))


class Client:
    """Asks one server for one file, and notes what was told."""

    def __init__(self, folder: Path) -> None:
        self.partial, self.target = folder / "partial" / "file", folder / "file"
        self.rooms: list[int] = []
        self.make_room: Callable[[int], None] = self.rooms.append
        self.told: list[tuple[int, int, int | None]] = []

    def have(self, data: bytes) -> None:
        self.partial.parent.mkdir(exist_ok=True)
        self.partial.write_bytes(data)

    async def bring(
        self, speak: Speak, *, size: int | None = SIZE, sha256: str | None = SHA256, most: int = 1 << 30
    ) -> int:
        with raw_server(speak) as url:
            async with Endpoint(url).client() as client:
                return await download(
                    client, Wanted("/file", most, size, sha256), self.partial, self.target,
                    make_room=self.make_room, on_bytes=lambda *told: self.told.append(told),
                )  # fmt: skip


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


async def test_what_broke_off_goes_on(client: Client) -> None:
    def dies(_head: str, out: BinaryIO) -> None:
        out.write(response("200 OK", CONTENT)[:1_500_000])

    with pytest.raises(InfrastructureError, match="the download broke") as caught:
        await client.bring(dies)
    assert caught.value.where.startswith("http://127.0.0.1:") and caught.value.where.endswith("/file")
    have = client.partial.stat().st_size
    assert 0 < have < SIZE and not client.target.exists()
    assert await client.bring(honest) == SIZE - have
    assert client.target.read_bytes() == CONTENT and not client.partial.exists()
    assert client.rooms == [SIZE, SIZE - have]
    assert client.told[-1] == (SIZE - have, SIZE, SIZE)


async def test_a_body_without_length_that_ends_early_is_kept_too(client: Client) -> None:
    def ends(_head: str, out: BinaryIO) -> None:
        out.write(response("200 OK", CONTENT[:1000], content_length=""))

    with pytest.raises(InfrastructureError, match=f"broke off at 1000 of {SIZE} bytes"):
        await client.bring(ends)
    assert await client.bring(honest) == SIZE - 1000
    assert client.target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "told", [f"bytes 0-{SIZE - 1}/{SIZE}", f"bytes 1001-{SIZE - 1}/{SIZE}", f"bytes 1000-1999/{SIZE}", "bytes x", ""]
)
async def test_another_range_than_was_asked_for_is_refused(client: Client, told: str) -> None:
    client.have(CONTENT[:1000])
    with pytest.raises(DataError, match="asked for bytes from 1000 on, the source sends"):
        await client.bring(saying(response("206 x", CONTENT[1000:], content_range=told)))
    assert not client.target.exists() and not client.partial.exists() and client.rooms == []
    assert await client.bring(honest) == SIZE


async def test_a_range_without_the_whole_size_is_taken(client: Client) -> None:
    client.have(CONTENT[:1000])
    answer = response("206 x", CONTENT[1000:], content_range=f"bytes 1000-{SIZE - 1}/*")
    assert await client.bring(saying(answer), size=None) == SIZE - 1000
    assert client.target.read_bytes() == CONTENT


async def test_a_source_without_ranges_sends_all_again(client: Client) -> None:
    client.have(b"x" * 5000)
    assert await client.bring(saying(response("200 OK", CONTENT))) == SIZE
    assert client.target.read_bytes() == CONTENT


async def test_a_whole_partial_file_costs_nothing(client: Client) -> None:
    client.have(CONTENT)
    assert await client.bring(never_asked) == 0
    assert client.target.read_bytes() == CONTENT
    client.have(CONTENT)
    assert await client.bring(honest, size=None, sha256=None) == 0, "HTTP 416 says that it is whole"
    assert client.target.read_bytes() == CONTENT


async def test_what_is_no_beginning_of_the_file_is_thrown_away(client: Client) -> None:
    client.have(b"x" * (SIZE + 1))
    assert await client.bring(honest, size=None) == SIZE, "HTTP 416 with another size"
    client.have(b"x" * (SIZE + 1))
    assert await client.bring(honest) == SIZE, "more than the whole file"
    with pytest.raises(InfrastructureError, match="416"):
        await client.bring(saying(response("416 x", b"")))
    client.have(b"x" * 1000)
    with pytest.raises(DataError, match="differs from the expected"):
        await client.bring(honest)
    assert not client.partial.exists()


async def test_more_than_agreed_is_not_written(client: Client) -> None:
    for answer, size, most, reason in (
        (response("200 OK", CONTENT), SIZE - 1, 1 << 30, f"{SIZE} bytes where {SIZE - 1} belong"),
        (response("200 OK", CONTENT), None, SIZE - 1, f"more than the {SIZE - 1} that are allowed"),
        (response("200 OK", CONTENT, content_length=""), SIZE - 1, 1 << 30, f"sends more than {SIZE - 1} bytes"),
        (response("200 OK", CONTENT, content_length=""), None, 1000, "sends more than 1000 bytes"),
    ):
        with pytest.raises(DataError, match=reason):
            await client.bring(saying(answer), size=size, sha256=None, most=most)
        assert not client.target.exists() and not client.partial.exists()
    with pytest.raises(DataError, match="compresses"):
        await client.bring(saying(response("200 OK", CONTENT, content_encoding="gzip")))


async def test_where_there_is_no_room_nothing_is_written(client: Client) -> None:
    def no_room(needed_bytes: int) -> None:
        raise InfrastructureError(f"no room for {needed_bytes}")

    client.have(CONTENT[:1000])
    client.make_room = no_room
    with pytest.raises(InfrastructureError, match=f"no room for {SIZE - 1000}"):
        await client.bring(honest)
    assert client.partial.read_bytes() == CONTENT[:1000] and client.told == []


async def test_a_full_disk_leaves_what_came(client: Client) -> None:
    with largest_file(1 << 20), pytest.raises(InfrastructureError, match="cannot be written: File too large"):
        await client.bring(honest)
    assert client.partial.stat().st_size == 1 << 20
    assert await client.bring(honest) == SIZE - (1 << 20)
    assert client.target.read_bytes() == CONTENT


async def test_two_do_not_write_one_file(client: Client) -> None:
    first_asked, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(head: str, out: BinaryIO) -> None:
        loop.call_soon_threadsafe(first_asked.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(timeout=20)
        honest(head, out)

    first = asyncio.create_task(client.bring(slow))
    await first_asked.wait()
    with pytest.raises(ConflictError, match="being downloaded already"):
        await client.bring(never_asked)
    go_on.set()
    assert await first == SIZE
    assert client.target.read_bytes() == CONTENT


async def test_a_file_that_another_download_has_just_finished_is_not_written_to(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens the partial file, then that one becomes the target, then it gets the lock."""
    client.have(CONTENT)
    lock = fcntl.flock

    def finish_first(file: int, how: int) -> None:
        if client.partial.stat().st_size:
            client.partial.rename(client.target)
            client.target.with_name("finished").hardlink_to(client.target)
        lock(file, how)

    monkeypatch.setattr("shared.files.download.fcntl.flock", finish_first)
    with pytest.raises(InfrastructureError):
        await client.bring(saying(b""))
    assert client.target.with_name("finished").read_bytes() == CONTENT and client.partial.stat().st_size == 0


async def test_a_refusal_says_what_the_source_said(client: Client) -> None:
    body = b'{"error": {"code": "not_found", "fault": "configuration", "message": "no such artifact here"}}'
    client.have(CONTENT[:7])
    with pytest.raises(InfrastructureError, match="the source refuses: no such artifact here"):
        await client.bring(saying(response("404 x", body)))
    assert client.partial.read_bytes() == CONTENT[:7]


async def test_the_store_brings_an_artifact_within_its_quota(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, quota_bytes=SIZE - 1)
    with raw_server(honest) as url:
        with pytest.raises(EpiError, match="do not fit the quota"):
            await store.download(Endpoint(url), SHA256, size_bytes=SIZE)
        assert store.used_bytes() == 0
        store.quota_bytes = SIZE
        assert await store.download(Endpoint(url), SHA256, size_bytes=SIZE) == SIZE
        assert await store.download(Endpoint(url), SHA256, size_bytes=SIZE) == 0, "it is here"
    assert store.path(SHA256).read_bytes() == CONTENT


def never_asked(_head: str, _out: BinaryIO) -> None:
    raise AssertionError("there is nothing to ask for")
