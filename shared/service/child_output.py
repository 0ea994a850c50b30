"""What a child process says: read to its end, so that it is never kept waiting, and only the last of it kept.

A program that goes wrong may write for ever; what counts of it are its last words.
"""

import asyncio
from typing import Final

KEPT_BYTES: Final = 256 << 10
_PIECE_BYTES: Final = 64 << 10


async def last_words(stream: asyncio.StreamReader, kept_bytes: int = KEPT_BYTES) -> bytes:
    """Return the last `kept_bytes` of a stream once it has ended; memory does not grow with it."""
    kept = bytearray()
    while piece := await stream.read(_PIECE_BYTES):
        kept += piece
        if len(kept) > 2 * kept_bytes:
            del kept[:-kept_bytes]
    return bytes(kept[-kept_bytes:])


async def outputs(process: asyncio.subprocess.Process, kept_bytes: int = KEPT_BYTES) -> tuple[bytes, bytes]:
    """Return the last of what a process writes to stdout and stderr (where they are pipes), once it has ended."""

    async def of(stream: asyncio.StreamReader | None) -> bytes:
        return b"" if stream is None else await last_words(stream, kept_bytes)

    said, complained, _ = await asyncio.gather(of(process.stdout), of(process.stderr), process.wait())
    return said, complained
