"""distributed-llama over real processes: the real `dllama` where there is one, and our stand-in everywhere."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from socket import AF_INET, SOCK_STREAM, socket

import psutil
import pytest

from node_agent.engines.distributed_llama import DistributedLlamaEngine, DllamaWorker
from node_agent.engines.dllama_files import DllamaTokenizer, read_model_header
from shared.errors import ConfigurationError, DataError, InfrastructureError
from shared.node_jobs import DecodeParams, PrefillParams, ScoreGroup, ScoreItem, ScoreParams, StartEngineParams
from tests import dllama_stand_in
from tests.node_tiny_dllama import write_model, write_tokenizer

REAL = os.environ.get("EPI_DLLAMA") or shutil.which("dllama")
PROMPT = "Hello the and then 1234567890, in an other\nthe"
DECODE = DecodeParams(prompts=(PROMPT,), tokens_each=20)


def quiet(_fraction: float, _message: str) -> None:
    pass


def free_port() -> int:
    with socket(AF_INET, SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module", params=["stand-in", "real"] if REAL else ["stand-in"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "real":
        return Path(str(REAL))
    launcher = tmp_path_factory.mktemp("bin") / "dllama"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{dllama_stand_in.__file__}" "$@"\n')
    launcher.chmod(0o755)
    return launcher


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("model")
    return write_model(folder / "tiny.m"), write_tokenizer(folder / "tiny.t")


class Lab:
    """An engine and its workers."""

    def __init__(self, folder: Path, program: Path, files: tuple[Path, Path], n_workers: int) -> None:
        self.files = files
        self.workers = [
            DllamaWorker(folder / f"node{n + 1}", "127.0.0.1", free_port(), 1, program) for n in range(n_workers)
        ]
        self.engine = DistributedLlamaEngine(folder / "node0", program)

    async def start(self, *, context_tokens: int = 1024) -> None:
        for worker in self.workers:
            await worker.start()
        endpoints = tuple(worker.endpoint for worker in self.workers)
        params = StartEngineParams(model_sha256="0" * 64, workers=endpoints, context_tokens=context_tokens)
        await self.engine.start(self.files[0], params, quiet, tokenizer=self.files[1])


@asynccontextmanager
async def lab(folder: Path, program: Path, files: tuple[Path, Path], n_workers: int) -> AsyncIterator[Lab]:
    """Give a started lab and check that nothing of it is left afterwards."""
    async with AsyncExitStack() as stack:
        made = Lab(folder, program, files, n_workers)
        stack.push_async_callback(made.engine.stop)
        for worker in made.workers:
            stack.push_async_callback(worker.stop)
        await made.start()
        yield made
    ports = [worker.endpoint.split(":")[1] for worker in made.workers]
    commands = [process.info["cmdline"] or () for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if {str(files[0]), *ports} & set(command)]
    assert not list(folder.rglob("*.pid"))


async def test_same_text_and_exact_ledgers_whatever_the_number_of_nodes(
    tmp_path: Path, program: Path, files: tuple[Path, Path]
) -> None:
    hashes = set()
    n_prompt = len(DllamaTokenizer.read(files[1]).encode(PROMPT))
    for n_workers in (0, 1, 3):
        async with lab(tmp_path / str(n_workers), program, files, n_workers) as made:
            result = await made.engine.decode(DECODE, quiet)
            hashes.add(result.output_sha256)
            assert result.ledger.model_dump() == {
                "generated": 20, "prompt": 1, "cached": n_prompt - 1, "scored": 0,
            }  # fmt: skip
            assert result.end_utc_ns > result.start_utc_ns
            for tokens in (1, 37, 200):
                prefill = await made.engine.prefill(PrefillParams(prompts=(PROMPT,), tokens_each=tokens), quiet)
                assert prefill.ledger.model_dump() == {"generated": 0, "prompt": tokens, "cached": 0, "scored": 0}
            again = await made.engine.decode(DECODE, quiet)
            assert again.output_sha256 == result.output_sha256
            pids = [worker.pid for worker in made.workers]
            assert [await worker.start() for worker in made.workers] == pids, "a worker died between requests"
    assert len(hashes) == 1


async def test_a_killed_worker_is_named_and_everything_starts_again(
    tmp_path: Path, program: Path, files: tuple[Path, Path]
) -> None:
    async with lab(tmp_path, program, files, 3) as made:
        work = asyncio.create_task(
            made.engine.decode(DecodeParams(prompts=(PROMPT,), tokens_each=900), quiet)
        )
        await _until_predicting(made, work)
        victim = made.workers[1]
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        with pytest.raises(InfrastructureError) as failure:
            await asyncio.wait_for(work, 30)
        assert failure.value.where == victim.endpoint
        for worker in made.workers:
            await worker.start(restart=True)
        assert (await made.engine.decode(DECODE, quiet)).ledger.generated == 20


async def _until_predicting(made: Lab, work: "asyncio.Task[object]") -> None:
    """Wait until the root has worked for a while: CPU time shows it without a word."""
    for _ in range(200):
        if made.engine.pid is not None and len(psutil.Process(made.engine.pid).net_connections(kind="tcp")) >= 3:
            break
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.15)
    assert not work.done()


async def test_a_worker_that_was_never_there_is_named(tmp_path: Path, program: Path, files: tuple[Path, Path]) -> None:
    async with lab(tmp_path, program, files, 1) as made:
        await made.workers[0].stop()
        with pytest.raises(InfrastructureError) as failure:
            await made.engine.decode(DECODE, quiet)
        assert failure.value.where == made.workers[0].endpoint


async def test_a_bare_connection_ends_an_idle_worker_and_starting_does_not_make_one(
    tmp_path: Path, program: Path, files: tuple[Path, Path]
) -> None:
    async with lab(tmp_path, program, files, 1) as made:
        worker = made.workers[0]
        pid = worker.pid
        assert await worker.start() == pid
        await asyncio.sleep(0.3)
        assert worker.pid == pid
        _, writer = await asyncio.open_connection("127.0.0.1", int(worker.endpoint.split(":")[1]))
        writer.close()
        for _ in range(100):
            if worker.pid is None:
                break
            await asyncio.sleep(0.05)
        assert worker.pid is None, "the fact on which this engine's silence rests does not hold any more"
        assert await worker.start() != pid


async def test_cancelling_ends_the_root_process(tmp_path: Path, program: Path, files: tuple[Path, Path]) -> None:
    async with lab(tmp_path, program, files, 0) as made:
        work = asyncio.create_task(made.engine.decode(DecodeParams(prompts=(PROMPT,), tokens_each=900), quiet))
        while made.engine.pid is None:
            await asyncio.sleep(0.01)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert made.engine.pid is None


async def test_what_it_cannot_do_is_refused_before_anything_starts(
    tmp_path: Path, program: Path, files: tuple[Path, Path]
) -> None:
    engine = DistributedLlamaEngine(tmp_path, program)
    model, tokenizer = files

    async def start(**extra: object) -> None:
        params = StartEngineParams.model_validate({"model_sha256": "0" * 64, "context_tokens": 128, **extra})
        await engine.start(model, params, quiet, tokenizer=tokenizer)

    with pytest.raises(ConfigurationError, match="cannot run this model on 3 nodes"):
        await start(workers=("127.0.0.1:1", "127.0.0.1:2"))
    with pytest.raises(ConfigurationError, match="cannot run this model on 8 nodes"):
        await start(workers=tuple(f"127.0.0.1:{n}" for n in range(1, 8)))
    with pytest.raises(ConfigurationError, match="K of 2, not 1"):
        await start(experts_per_token=1)
    with pytest.raises(ConfigurationError, match="no engine runs"):
        await engine.decode(DECODE, quiet)
    await start()
    with pytest.raises(ConfigurationError, match="one request a workload, not 2"):
        await engine.decode(DECODE.model_copy(update={"repeats": 2}), quiet)
    with pytest.raises(ConfigurationError, match="needs 201 positions, the engine has 128"):
        await engine.prefill(PrefillParams(prompts=(PROMPT,), tokens_each=200), quiet)
    with pytest.raises(ConfigurationError, match="no log-probabilities"):
        group = ScoreGroup(items=(ScoreItem(suffix="a", continuations=("b",)),))
        await engine.score(ScoreParams(groups=(group,)), quiet)
    damaged = tmp_path / "damaged.m"
    damaged.write_bytes(model.read_bytes()[:40])
    with pytest.raises(DataError):
        read_model_header(damaged)
    with pytest.raises(ConfigurationError, match="program is not here"):
        await DllamaWorker(tmp_path, "127.0.0.1", free_port(), 1, tmp_path / "none").start()
