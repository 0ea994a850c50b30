"""The one resumable download: a partial file grows to the whole one, whatever breaks in between.

What is missing is asked for by range, and what comes must be what was asked for: its place, its size, in the end its
hash. Room is made before anything is written, and no source can send more than it announced. One download at a time
works on a partial file. Not here: which source, and what the file is for.
"""

import asyncio
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from shared.files.atomic import move_into_place
from shared.files.durability import hash_file
from shared.kernel.errors import ConflictError, DataError, InfrastructureError, error_of_reply
from shared.service.reply import read_reply

OnBytes = Callable[[int, int, int | None], None]
"""Called with (bytes received by this call, bytes of the file that are here, bytes of the whole file or None)."""

_CHUNK_BYTES: Final = 1 << 20
_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\Z")
_NO_SUCH_RANGE: Final = re.compile(r"bytes \*/(\d{1,18})\Z")


@dataclass(frozen=True)
class Wanted:
    """What is asked for, and how far a source is believed.

    Attributes:
        url: Absolute, or a path below the client's endpoint.
        max_bytes: A larger file is refused.
        size_bytes: Of the whole file, where it is known.
        sha256: Of the whole file, where it is known.
    """

    url: str
    max_bytes: int
    size_bytes: int | None = None
    sha256: str | None = None


async def download(
    client: httpx.AsyncClient,
    wanted: Wanted,
    partial: Path,
    target: Path,
    *,
    make_room: Callable[[int], object],
    on_bytes: OnBytes | None = None,
) -> int:
    """Bring what `partial` lacks, check the whole file and move it to `target`; return the bytes received.

    `make_room` is called in a thread with the bytes that are still to come, and raises when there is no room for them.

    Raises:
        ConflictError: another download works on this partial file.
        InfrastructureError: the source cannot be reached, refuses or breaks off, or the disk is full; what came stays.
        DataError: the source sends another file than the one that was asked for; the partial file is removed.
    """
    with _locked(partial) as file:
        try:
            received = await _Transfer(client, wanted, file, make_room, on_bytes).run()
            if wanted.sha256 is not None and (found := await asyncio.to_thread(hash_file, partial)) != wanted.sha256:
                raise DataError(f"hash {found} differs from the expected {wanted.sha256}", where=str(target))
            await asyncio.to_thread(move_into_place, partial, target)
        except DataError:
            partial.unlink()
            raise
        except httpx.HTTPError as error:
            raise InfrastructureError(f"the download broke: {error!r}", where=_url(client, wanted)) from error
        except OSError as error:
            raise InfrastructureError(f"the file cannot be written: {error.strerror}", where=str(partial)) from error
        return received


def _url(client: httpx.AsyncClient, wanted: Wanted) -> str:
    return str(client.base_url.join(wanted.url))


@contextmanager
def _locked(partial: Path) -> Iterator[int]:
    """Open the partial file for this download alone; it is not the target that an earlier download made of it."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConflictError("this file is being downloaded already", where=str(partial)) from error
            if partial.exists() and os.path.samestat(os.fstat(file), partial.stat()):
                yield file
                return
        finally:
            os.close(file)


@dataclass(frozen=True)
class _Place:
    """Where in the file the body of a response belongs, and how large the whole file is, if anybody knows."""

    begin: int
    total: int | None


class _Transfer:
    def __init__(
        self,
        client: httpx.AsyncClient,
        wanted: Wanted,
        file: int,
        make_room: Callable[[int], object],
        on_bytes: OnBytes | None,
    ) -> None:
        self._client, self._wanted, self._file = client, wanted, file
        self._make_room, self._on_bytes = make_room, on_bytes
        self._where = _url(client, wanted)

    async def run(self) -> int:
        """Complete the file; return the bytes received."""
        have = os.fstat(self._file).st_size
        if self._wanted.size_bytes is not None and have > self._wanted.size_bytes:
            os.truncate(self._file, have := 0)
        if have and have == self._wanted.size_bytes:
            return 0
        received = await self._ask(have)
        if received is None:  # the source has no such range: what is here is no beginning of its file
            os.truncate(self._file, 0)
            received = await self._ask(0)
        if received is None:
            raise InfrastructureError("the source refuses even the whole file (HTTP 416)", where=self._where)
        return received

    async def _ask(self, have: int) -> int | None:
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
        async with self._client.stream("GET", self._wanted.url, headers=headers) as response:
            if response.status_code == 416:
                whole = _NO_SUCH_RANGE.match(response.headers.get("content-range", ""))
                return 0 if whole and have and int(whole[1]) == have else None
            if response.status_code not in (200, 206):
                reply = await read_reply(response)
                error = error_of_reply(reply.status, reply.body, self._where)
                raise InfrastructureError(f"the source refuses: {error.message}", where=self._where)
            return await self._take(response, self._place(response, have))

    def _place(self, response: httpx.Response, have: int) -> _Place:
        """Return where the body belongs.

        Raises:
            DataError: it is not what was asked for.
        """
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise DataError("the source compresses the file, which nobody asked for", where=self._where)
        if response.status_code == 206:
            told = response.headers.get("content-range", "")
            match = _RANGE.match(told)
            total = None if match is None or match[3] == "*" else int(match[3])
            if match is None or int(match[1]) != have or (total is not None and int(match[2]) != total - 1):
                raise DataError(f"asked for bytes from {have} on, the source sends {told[:60]!r}", where=self._where)
            return self._checked(_Place(have, total))
        length = response.headers.get("content-length")
        return self._checked(_Place(0, int(length) if length is not None else None))

    def _checked(self, place: _Place) -> _Place:
        wanted, total = self._wanted, place.total
        if total is None:
            return _Place(place.begin, wanted.size_bytes)
        if wanted.size_bytes not in (None, total):
            raise DataError(f"{total} bytes where {wanted.size_bytes} belong", where=self._where)
        if total > wanted.max_bytes:
            raise DataError(f"{total} bytes, more than the {wanted.max_bytes} that are allowed", where=self._where)
        return place

    async def _take(self, response: httpx.Response, place: _Place) -> int:
        await asyncio.to_thread(self._make_room, 0 if place.total is None else place.total - place.begin)
        os.truncate(self._file, place.begin)
        limit = self._wanted.max_bytes if place.total is None else place.total
        here = place.begin
        async for chunk in response.aiter_raw(_CHUNK_BYTES):
            if here + len(chunk) > limit:
                raise DataError(f"the source sends more than {limit} bytes", where=self._where)
            left = memoryview(chunk)
            while left:
                left = left[os.write(self._file, left) :]
            here += len(chunk)
            if self._on_bytes is not None:
                self._on_bytes(here - place.begin, here, place.total)
        if place.total is not None and here != place.total:
            raise InfrastructureError(f"the source broke off at {here} of {place.total} bytes", where=self._where)
        return here - place.begin
