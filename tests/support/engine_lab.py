"""Every engine over real worker processes, started in one way, for the contract suite and the engines' own tests."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET, SOCK_STREAM, socket

import psutil

from node_agent.engines.base import Engine, Place, Worker
from node_agent.engines.distributed_llama import DistributedLlamaEngine, DllamaWorker
from node_agent.engines.llama_cpp import LlamaCppEngine, RpcWorker
from shared.wire.node_jobs.engines import StartEngineParams, StartEngineResult
from tests.support import dllama_stand_in

REAL_DLLAMA = os.environ.get("EPI_DLLAMA") or shutil.which("dllama")
KINDS = ["llama.cpp", "distributed-llama stand-in", *(["distributed-llama real"] if REAL_DLLAMA else [])]


def quiet(_fraction: float, _message: str) -> None:
    """Take progress and say nothing."""


def free_port() -> int:
    """Return a TCP port that is free on loopback now."""
    with socket(AF_INET, SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def dllama_program(folder: Path, *, real: bool) -> Path:
    """Return the real `dllama`, or a launcher of our stand-in made in `folder`."""
    if real:
        return Path(str(REAL_DLLAMA))
    launcher = folder / "dllama"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{dllama_stand_in.__file__}" "$@"\n')
    launcher.chmod(0o755)
    return launcher


@dataclass(frozen=True)
class ModelFiles:
    """A model for one engine."""

    model: Path
    tokenizer: Path | None = None


class EngineLab:
    """An engine on the first node and the workers of all nodes that need one."""

    def __init__(self, place: Place, engine: Engine, workers: list[Worker], files: ModelFiles) -> None:
        self.place = place
        self.engine = engine
        self.workers = workers
        self.files = files

    async def start(self, **extra: object) -> StartEngineResult:
        """Start workers that do not run, and the engine."""
        await asyncio.gather(*(worker.start() for worker in self.workers))
        endpoints = tuple(worker.endpoint for worker in self.workers)
        fields = {"model_sha256": "0" * 64, "workers": endpoints, "context_tokens": 1024, **extra}
        params = StartEngineParams.model_validate(fields)
        return await self.engine.start(self.files.model, params, quiet, tokenizer=self.files.tokenizer)


@asynccontextmanager
async def engine_lab(
    kind: str, folder: Path, files: ModelFiles, n_nodes: int, *, program: Path | None = None
) -> AsyncIterator[EngineLab]:
    """Give an engine that runs on `n_nodes` (llama.cpp: 0 is this process's CPU), and check that nothing is left."""
    engine: Engine
    workers: list[Worker]
    if kind == "llama.cpp":
        places = [Place(folder / f"node{n}", "127.0.0.1", free_port(), 1) for n in range(max(n_nodes, 1))]
        workers = [RpcWorker(place) for place in places[:n_nodes]]
        engine = LlamaCppEngine(places[0])
    else:
        folder.mkdir(exist_ok=True)
        program = program or dllama_program(folder, real=kind.endswith("real"))
        places = [Place(folder / f"node{n}", "127.0.0.1", free_port(), 1) for n in range(max(n_nodes, 1))]
        workers = [DllamaWorker(place, program) for place in places[1:]]
        engine = DistributedLlamaEngine(places[0], program)
        if not kind.endswith("real"):
            engine.pause_s = 0.3  # the stand-in opens its port again at once
    async with AsyncExitStack() as stack:
        for worker in workers:
            stack.push_async_callback(worker.stop)
        stack.push_async_callback(engine.stop)
        yield EngineLab(places[0], engine, workers, files)
    marks = {str(files.model), str(folder / "node0" / "engine.sock"), *(w.endpoint.rpartition(":")[2] for w in workers)}
    left = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if marks & set(p.info["cmdline"] or ())]
    assert not left, left
    assert not list(folder.rglob("*.pid"))
