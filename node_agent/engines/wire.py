"""The line protocol between the agent and its engine process, over a Unix socket in the agent's state folder.

One request a line: `{"op": ..., "params": {...}}`. Answers: any number of `{"progress": f, "message": s}`, then one
`{"result": {...}}` or `{"error": ErrorPayload}`. Closing the connection cancels what runs.

Socket paths may have at most 107 bytes; `short_path` reaches any folder through its file descriptor.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from shared.kernel.errors import BugError, ErrorPayload, InfrastructureError, from_payload
from shared.kernel.progress import Progress
from shared.kernel.records import Record, Sha256
from shared.wire.node_jobs.engines import EngineBuffers

Operation = Literal["status", "load", "unload", "prefill", "decode", "score", "generate"]
SOCKET_NAME = "engine.sock"
_LINE_LIMIT_BYTES = 1 << 30


class LoadRequest(Record):
    """Load a model; what was loaded before is freed first."""

    model_path: str
    model_sha256: Sha256
    workers: tuple[str, ...] = ()
    context_tokens: int = Field(ge=64)
    sequences: int = Field(ge=2, le=256)
    threads: int = Field(default=1, ge=1)
    experts_per_token: int | None = None
    cache_f32: bool = False
    gpu_layers: int = Field(default=0, ge=0)


class LoadedModel(Record):
    """What the engine process has loaded."""

    request: LoadRequest
    architecture: str
    n_layers: int
    n_vocab: int
    load_seconds: float
    buffers: tuple[EngineBuffers, ...] = ()


class EngineStatus(Record):
    """Answer of `status`, `load` and `unload`."""

    pid: int
    build: str
    loaded: LoadedModel | None = None


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Give a path to `path` that fits into a socket address however deep its folder lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class EngineGoneError(InfrastructureError):
    """The engine process closed the connection without an answer."""


async def call(path: Path, op: Operation, params: str, on_progress: Progress) -> dict[str, Any]:
    """Ask the engine process at `path`; `params` is JSON; cancelling the call cancels the work.

    Raises:
        EngineGoneError: it cannot be reached or died.
        EpiError: what the engine reported.
    """
    try:
        with short_path(path) as short:
            reader, writer = await asyncio.open_unix_connection(short, limit=_LINE_LIMIT_BYTES)
    except OSError as error:
        raise EngineGoneError(f"the engine process does not answer: {error.strerror}", where=str(path)) from error
    try:
        writer.write(f'{{"op": "{op}", "params": {params}}}\n'.encode())
        await writer.drain()
        while line := await reader.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise from_payload(ErrorPayload.model_validate(answer["error"]))
            if "result" in answer:
                result: dict[str, Any] = answer["result"]
                return result
            if "progress" not in answer:
                raise BugError("the engine process sent something unknown", where=line[:80].decode())
            on_progress(answer["progress"], answer["message"])
    except OSError as error:
        raise EngineGoneError(f"the connection broke: {error.strerror}", where=str(path)) from error
    finally:
        writer.close()
    raise EngineGoneError("the engine process ended without an answer", where=str(path))
