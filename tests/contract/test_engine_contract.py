"""What every engine promises, whatever it is: one suite for all of them, over real processes."""

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest

from node_agent.engines.dllama_files import DllamaTokenizer
from shared.kernel.errors import ConfigurationError, InfrastructureError
from shared.llama.model import Model
from shared.wire.node_jobs.workloads import (
    DecodeParams,
    GenerateItem,
    GenerateParams,
    PrefillParams,
    ScoreGroup,
    ScoreItem,
    ScoreParams,
    WorkloadResult,
)
from tests.support.engine_lab import KINDS, EngineLab, ModelFiles, engine_lab, quiet
from tests.support.node_tiny_dllama import write_model, write_tokenizer
from tests.support.node_tiny_model import write_tiny_model

PROMPT = "Hello the and then 1234567890, in an other\nthe"
DECODE = DecodeParams(prompts=(PROMPT,), tokens_each=20)
LONG = DecodeParams(prompts=(PROMPT,), tokens_each=900)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def files(kind: str, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    folder = tmp_path_factory.mktemp("model")
    if kind == "llama.cpp":
        return ModelFiles(write_tiny_model(folder / "tiny.gguf"))
    return ModelFiles(write_model(folder / "tiny.m"), write_tokenizer(folder / "tiny.t"))


def prompt_tokens(files: ModelFiles) -> int:
    if files.tokenizer is not None:
        return len(DllamaTokenizer.read(files.tokenizer).encode(PROMPT))
    with Model(files.model, vocab_only=True) as head:
        return len(head.tokenize(PROMPT))


async def working(lab: EngineLab, params: DecodeParams) -> "asyncio.Task[WorkloadResult]":
    """Start a long workload and return when it generates: the process is there, connected, and has worked a while."""
    task = asyncio.create_task(lab.engine.decode(params, quiet))
    for _ in range(500):
        pid = lab.engine.pid
        if pid is not None and len(psutil.Process(pid).net_connections(kind="tcp")) >= len(lab.workers):
            break
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    assert not task.done()
    return task


async def test_same_output_and_exact_ledgers_whatever_the_number_of_nodes(
    kind: str, files: ModelFiles, tmp_path: Path
) -> None:
    outputs = set()
    for n_nodes in (1, 2, 4):
        async with engine_lab(kind, tmp_path / str(n_nodes), files, n_nodes) as lab:
            started = await lab.start()
            assert started.architecture == "qwen3moe" and started.n_layers > 0 and started.build
            for _ in range(2):
                result = await lab.engine.decode(DECODE, quiet)
                outputs.add(result.output_sha256)
                assert result.ledger.model_dump() == {
                    "generated": 20, "prompt": 1, "cached": prompt_tokens(files) - 1, "scored": 0,
                }  # fmt: skip
                assert result.start_utc_ns < result.end_utc_ns and len(result.requests) == 1
            for tokens in (1, 200):
                prefill = await lab.engine.prefill(PrefillParams(prompts=(PROMPT,), tokens_each=tokens), quiet)
                assert prefill.ledger.model_dump() == {"generated": 0, "prompt": tokens, "cached": 0, "scored": 0}
    assert len(outputs) == 1 and None not in outputs


async def test_a_killed_worker_is_named_and_everything_starts_again(
    kind: str, files: ModelFiles, tmp_path: Path
) -> None:
    async with engine_lab(kind, tmp_path, files, 4) as lab:
        await lab.start()
        before = await lab.engine.decode(DECODE, quiet)
        task = await working(lab, LONG)
        victim = lab.workers[1]
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        with pytest.raises(InfrastructureError) as failure:
            await asyncio.wait_for(task, 60)
        assert failure.value.where == victim.endpoint
        assert lab.engine.pid is None
        await asyncio.gather(*(worker.start(restart=True) for worker in lab.workers))
        await lab.start()
        assert (await lab.engine.decode(DECODE, quiet)).output_sha256 == before.output_sha256


async def test_a_cancelled_workload_stops_and_the_engine_goes_on(kind: str, files: ModelFiles, tmp_path: Path) -> None:
    async with engine_lab(kind, tmp_path, files, 1) as lab:
        await lab.start()
        task = asyncio.create_task(lab.engine.decode(LONG, quiet))
        await asyncio.sleep(0.15)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        result = await asyncio.wait_for(lab.engine.decode(DECODE, quiet), 30)
        assert result.ledger.generated == 20


async def test_stopping_in_the_middle_leaves_nothing(kind: str, files: ModelFiles, tmp_path: Path) -> None:
    async with engine_lab(kind, tmp_path, files, 2) as lab:
        await lab.start()
        task = await working(lab, LONG)
        await lab.engine.stop()
        with pytest.raises(InfrastructureError):
            await asyncio.wait_for(task, 30)
        with pytest.raises(InfrastructureError, match="no engine runs"):
            await lab.engine.decode(DECODE, quiet)


async def test_capabilities_are_kept_and_what_is_not_declared_is_refused(
    kind: str, files: ModelFiles, tmp_path: Path
) -> None:
    score = ScoreParams(groups=(ScoreGroup(items=(ScoreItem(suffix="the", continuations=(" one", " two")),)),))
    generate = GenerateParams(items=(GenerateItem(prompt=PROMPT, max_tokens=4),))
    async with engine_lab(kind, tmp_path, files, 1) as lab:
        assert lab.engine.available
        able = lab.engine.description
        assert kind.startswith(able.name)
        await lab.start()
        if able.score:
            assert len((await lab.engine.score(score, quiet)).groups[0][0].log_likelihoods) == 2
        else:
            with pytest.raises(ConfigurationError, match="no log-probabilities"):
                await lab.engine.score(score, quiet)
        if able.generate:
            assert (await lab.engine.generate(generate, quiet)).ledger.generated <= 4
        else:
            with pytest.raises(ConfigurationError, match="may not be judged"):
                await lab.engine.generate(generate, quiet)
        if able.overrides_experts_per_token:
            await lab.start(experts_per_token=1)
        else:
            with pytest.raises(ConfigurationError, match="K of 2, not 1"):
                await lab.start(experts_per_token=1)
        two = DECODE.model_copy(update={"repeats": 2})
        await lab.start()
        if able.requests_per_workload is None:
            assert (await lab.engine.decode(two, quiet)).ledger.generated == 40
        else:
            with pytest.raises(ConfigurationError, match="one request a workload"):
                await lab.engine.decode(two, quiet)


async def test_what_does_not_fit_is_refused_with_numbers(kind: str, files: ModelFiles, tmp_path: Path) -> None:
    async with engine_lab(kind, tmp_path, files, 1) as lab:
        with pytest.raises(InfrastructureError, match="no engine runs"):
            await lab.engine.decode(DECODE, quiet)
        await lab.start(context_tokens=128)
        with pytest.raises(ConfigurationError, match=r"needs 20\d (cache tokens|positions), the engine has 128"):
            await lab.engine.prefill(PrefillParams(prompts=(PROMPT,), tokens_each=200), quiet)
