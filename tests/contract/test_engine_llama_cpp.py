"""What is llama.cpp's own: several requests a workload, K override, prefixes, being found again."""

import asyncio
import os
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from node_agent.engines.llama_cpp import LlamaCppEngine
from node_agent.engines.tokens import Tokenizer
from node_agent.engines.workloads import Workloads
from shared.checkpoints.surgery import apply_plan
from shared.kernel.errors import ConfigurationError, DataError, InfrastructureError
from shared.kernel.records import SurgeryPlan
from shared.llama.model import Context, Model, offloads_to_gpu
from shared.wire.node_jobs.engines import StartEngineParams
from shared.wire.node_jobs.workloads import (
    DecodeParams,
    GenerateItem,
    GenerateParams,
    PrefillParams,
    ScoreGroup,
    ScoreItem,
    ScoreParams,
)
from tests.support.engine_lab import EngineLab, ModelFiles, engine_lab, quiet
from tests.support.node_tiny_model import write_tiny_model

PROMPTS = ("Hello the world", "and then\n\nthe other")
DECODE = DecodeParams(prompts=PROMPTS, tokens_each=24, repeats=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


def cluster(folder: Path, model: Path, n_workers: int) -> AbstractAsyncContextManager[EngineLab]:
    return engine_lab("llama.cpp", folder, ModelFiles(model), n_workers)


@pytest.fixture(scope="module")
def local_hash(model: Path) -> str | None:
    """Return the hash of the tokens that one context in this process generates."""
    with Model(model) as loaded, Context(loaded, context_tokens=1024, batch_tokens=512, sequences=32) as context:
        workloads = Workloads(context, Tokenizer(loaded), context_tokens=1024, sequences=32)
        return workloads.decode(DECODE, quiet).output_sha256


@pytest.mark.parametrize("n_workers", [0, 1, 2, 4])
async def test_same_tokens_and_exact_ledgers_whatever_the_number_of_workers(
    model: Path, tmp_path: Path, local_hash: str | None, n_workers: int
) -> None:
    async with cluster(tmp_path, model, n_workers) as lab:
        started = await lab.start()
        assert (started.architecture, started.n_layers, started.pid) == ("qwen3moe", 4, lab.engine.pid)
        before = {worker.pid: psutil.Process(worker.pid).cpu_times().user for worker in lab.workers}
        result = await lab.engine.decode(DECODE, quiet)
        with Model(model, vocab_only=True) as head:
            lengths = [len(head.tokenize(prompt)) for prompt in PROMPTS]
        assert result.output_sha256 == local_hash
        assert result.ledger.model_dump() == {
            "generated": 96, "prompt": 4, "cached": 2 * (sum(lengths) - 2), "scored": 0,
        }  # fmt: skip
        assert len(result.requests) == 4
        spans = [(r.start_utc_ns, r.end_utc_ns) for r in result.requests]
        assert spans == sorted(spans) and result.start_utc_ns <= spans[0][0] and spans[-1][1] <= result.end_utc_ns

        prefill = await lab.engine.prefill(PrefillParams(prompts=PROMPTS, tokens_each=700, repeats=3), quiet)
        assert prefill.ledger.model_dump() == {"generated": 0, "prompt": 4200, "cached": 0, "scored": 0}
        assert all(psutil.Process(pid).cpu_times().user > used for pid, used in before.items()), "an idle worker"


async def test_a_dead_worker_is_named_before_the_engine_starts(model: Path, tmp_path: Path) -> None:
    async with cluster(tmp_path, model, 2) as lab:
        await lab.start()
        await lab.workers[1].stop()
        params = StartEngineParams(model_sha256="0" * 64, workers=tuple(worker.endpoint for worker in lab.workers))
        with pytest.raises(InfrastructureError) as refused:
            await lab.engine.start(model, params, quiet)
        assert refused.value.where == lab.workers[1].endpoint


async def test_a_killed_engine_is_reported_with_its_signal(model: Path, tmp_path: Path) -> None:
    async with cluster(tmp_path, model, 1) as lab:
        await lab.start()
        work = asyncio.create_task(lab.engine.decode(DecodeParams(prompts=PROMPTS, tokens_each=900, repeats=50), quiet))
        await asyncio.sleep(0.3)
        assert lab.engine.pid is not None
        os.kill(lab.engine.pid, signal.SIGKILL)
        with pytest.raises(InfrastructureError, match="SIGKILL"):
            await asyncio.wait_for(work, 30)
        with pytest.raises(InfrastructureError, match="SIGKILL"):
            await lab.engine.decode(DECODE, quiet)


async def test_the_engine_is_found_again_with_its_model(model: Path, tmp_path: Path, local_hash: str | None) -> None:
    async with cluster(tmp_path, model, 1) as lab:
        await lab.start()
        again = LlamaCppEngine(lab.place)
        assert await again.find() and again.pid == lab.engine.pid
        assert (await again.decode(DECODE, quiet)).output_sha256 == local_hash
        await lab.workers[0].stop()
        with pytest.raises(InfrastructureError) as failure:
            await again.decode(DECODE, quiet)
        assert failure.value.where == lab.workers[0].endpoint, "a found engine knows its workers"


async def test_k_override_changes_the_output_and_impossible_k_is_refused(
    model: Path, tmp_path: Path, local_hash: str | None
) -> None:
    async with cluster(tmp_path, model, 0) as lab:
        await lab.start(experts_per_token=1)
        assert (await lab.engine.decode(DECODE, quiet)).output_sha256 != local_hash
        await lab.start(experts_per_token=2)
        assert (await lab.engine.decode(DECODE, quiet)).output_sha256 == local_hash
        with pytest.raises(ConfigurationError, match="5 experts a token cannot be chosen from 4"):
            await lab.start(experts_per_token=5)


async def test_connections_to_machines_that_may_vanish_are_kept_alive(model: Path, tmp_path: Path) -> None:
    """Both ends run the kernel's keepalive timer: losing power or cable ends a connection in half a minute."""
    async with cluster(tmp_path, model, 2) as lab:
        await lab.start()
        ports = {int(worker.endpoint.rpartition(":")[2]) for worker in lab.workers}
        await asyncio.sleep(0.5)  # while data is under way another timer runs
        ends = []
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, state, _, timer, *_ = line.split()
            if state == "01" and ports & {int(end.partition(":")[2], 16) for end in (local, remote)}:
                ends.append(timer.partition(":")[0])
        assert ends == ["02"] * 4  # 01 established; 02 keepalive timer (Documentation/networking/proc_net_tcp)


async def test_a_hung_engine_is_replaced(
    model: Path, tmp_path: Path, local_hash: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaCppEngine, "answer_s", 0.5)
    async with cluster(tmp_path, model, 1) as lab:
        await lab.start()
        hung = lab.engine.pid
        assert hung is not None
        os.kill(hung, signal.SIGSTOP)
        await lab.workers[0].start(restart=True)
        await lab.start()
        assert lab.engine.pid != hung and not psutil.pid_exists(hung)
        assert (await lab.engine.decode(DECODE, quiet)).output_sha256 == local_hash


async def test_a_dense_model_runs_and_its_experts_are_refused(tmp_path: Path) -> None:
    dense = write_tiny_model(tmp_path / "dense.gguf", n_experts=0)
    async with cluster(tmp_path, dense, 2) as lab:
        started = await lab.start()
        assert started.architecture == "qwen3"
        assert (await lab.engine.decode(DECODE, quiet)).ledger.generated == 96
        with pytest.raises(ConfigurationError, match="cannot be chosen from 0"):
            await lab.start(experts_per_token=2)
        plan = SurgeryPlan(n_experts=4, kept=((0, 1, 2),) * 4)
        with pytest.raises(ConfigurationError, match=r"no experts|dense|not .*Mixture"):
            apply_plan(dense, plan, tmp_path / "never.gguf")


async def test_generation_stops_where_asked_and_shares_beginnings(model: Path, tmp_path: Path) -> None:
    shots = "Question: the one and the other?\nAnswer: an other\n\n" * 6
    items = [GenerateItem(prompt=f"{shots}Question: {n}?\nAnswer:", max_tokens=12) for n in range(3)]
    async with cluster(tmp_path, model, 1) as lab:
        await lab.start()
        free = await lab.engine.generate(GenerateParams(items=tuple(items)), quiet)
        assert [text.stopped for text in free.texts if text.stopped != "end"] == ["length"] * 3
        assert free.ledger.generated == 36
        assert free.texts[0].ledger.cached == 0 and free.texts[1].ledger.prompt < 20
        alone = await lab.engine.generate(GenerateParams(items=(items[2],)), quiet)
        assert alone.texts[0].text == free.texts[2].text, "a shared beginning changes nothing"
        stop = free.texts[0].text[2:4]
        cut = await lab.engine.generate(GenerateParams(items=(items[0].model_copy(update={"until": (stop,)}),)), quiet)
        assert cut.texts[0].stopped == "until"
        assert free.texts[0].text.startswith(cut.texts[0].text) and stop not in cut.texts[0].text
        with pytest.raises(ConfigurationError, match="the engine has 1024"):
            await lab.engine.generate(GenerateParams(items=(GenerateItem(prompt=shots, max_tokens=1000),)), quiet)


async def test_what_does_not_fit_is_refused_with_numbers(model: Path, tmp_path: Path) -> None:
    async with cluster(tmp_path, model, 0) as lab:
        await lab.start(context_tokens=256, sequences=2)
        with pytest.raises(ConfigurationError, match="needs 700 cache tokens, the engine has 256"):
            await lab.engine.prefill(PrefillParams(prompts=PROMPTS, tokens_each=700), quiet)
        with pytest.raises(ConfigurationError, match="needs 3 sequences, the engine has 2"):
            await lab.engine.decode(DECODE, quiet)
        item = ScoreItem(suffix="why?", continuations=(" one more", " other less"))
        with pytest.raises(ConfigurationError, match="parallel sequences"):
            await lab.engine.score(ScoreParams(groups=(ScoreGroup(items=(item,)),)), quiet)
        damaged = tmp_path / "damaged.gguf"
        damaged.write_bytes(model.read_bytes()[:10_000])
        with pytest.raises(DataError, match=r"cannot load"):
            await lab.engine.start(damaged, StartEngineParams(model_sha256="0" * 64), quiet)


async def test_a_deep_state_folder_is_no_problem(model: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("very-long-folder-name-" * 5) / ("another-long-one-" * 5)
    deep.mkdir(parents=True)
    async with cluster(deep, model, 0) as lab:
        await lab.start()


@pytest.mark.parametrize("bos", [False, True])
def test_pairs_are_split_as_lm_eval_splits_them(tmp_path: Path, bos: bool) -> None:
    from lm_eval.api.model import TemplateLM

    with Model(write_tiny_model(tmp_path / "m.gguf", bos=bos), vocab_only=True) as head:
        tokenizer = Tokenizer(head)

        class Reference(TemplateLM):  # type: ignore[misc]
            """lm-eval's own splitting over the same encoder."""

            backend = "causal"
            eot_token_id = prefix_token_id = tokenizer.start_token

            def tok_encode(self, string: str, add_special_tokens: bool | None = None) -> list[int]:
                return tokenizer.encode(string, special=add_special_tokens is not False)

            def _loglikelihood_tokens(self, requests: list, **_: object) -> list:  # type: ignore[type-arg]
                return [(tuple(context), tuple(continuation)) for _, context, continuation in requests]

            def loglikelihood_rolling(self, requests: list) -> list: ...  # type: ignore[type-arg,empty-body]
            def generate_until(self, requests: list) -> list: ...  # type: ignore[type-arg,empty-body]

        texts = [
            ("Question: in the\nAnswer:", " the one"), ("Ends in spaces  ", "and"), ("Ends in a line\n\n", "the"),
            ("th", "e merged word"), ("", "the alone"), ("Grüße 你好", " 🙂 and"), ("a<|endoftext|>b", " c"),
            ("<|begin|>given", " x"),
        ]  # fmt: skip

        class Request:
            def __init__(self, args: tuple[str, str]) -> None:
                self.args = args

        expected = Reference().loglikelihood([Request(pair) for pair in texts])
        pairs = [tokenizer.pair(*pair) for pair in texts]
        assert [(pair.context, pair.continuation) for pair in pairs] == expected
        with pytest.raises(DataError, match="no token of its own"):
            tokenizer.pair("t", "")


async def test_gpu_layers_without_a_gpu_are_refused_and_never_ignored(model: Path, tmp_path: Path) -> None:
    """The build that is tested here has no GPU backend; llama.cpp itself would silently use the CPU."""
    assert not offloads_to_gpu()
    async with cluster(tmp_path, model, 0) as lab:
        with pytest.raises(ConfigurationError, match=r"gpu_layers = 999.*without a GPU backend"):
            await lab.start(gpu_layers=999)
    with pytest.raises(ValidationError, match="gpu_layers"):
        StartEngineParams(model_sha256="a" * 64, workers=("127.0.0.1:1",), gpu_layers=1)
