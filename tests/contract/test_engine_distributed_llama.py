"""What is distributed-llama's own: its worker's frailty, node counts, files; the contract holds what all promise."""

import asyncio
from pathlib import Path

import pytest

from node_agent.engines.base import Place
from node_agent.engines.distributed_llama import DistributedLlamaEngine, DllamaWorker
from node_agent.engines.dllama_files import DllamaTokenizer, cut_to_length, read_model_header
from node_agent.engines.dllama_output import Transcript
from shared.kernel.errors import ConfigurationError, DataError, InfrastructureError
from shared.wire.node_jobs.engines import StartEngineParams
from shared.wire.node_jobs.workloads import DecodeParams
from tests.support.engine_lab import KINDS, ModelFiles, dllama_program, engine_lab, free_port, quiet
from tests.support.node_tiny_dllama import write_model, write_tokenizer

DECODE = DecodeParams(prompts=("Hello the and then",), tokens_each=20)


@pytest.fixture(scope="module", params=KINDS[1:])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    folder = tmp_path_factory.mktemp("model")
    return ModelFiles(write_model(folder / "tiny.m"), write_tokenizer(folder / "tiny.t"))


async def test_a_worker_that_was_never_there_is_named(kind: str, files: ModelFiles, tmp_path: Path) -> None:
    async with engine_lab(kind, tmp_path, files, 2) as lab:
        await lab.start()
        await lab.workers[0].stop()
        with pytest.raises(InfrastructureError) as failure:
            await lab.engine.decode(DECODE, quiet)
        assert failure.value.where == lab.workers[0].endpoint


async def test_a_bare_connection_ends_an_idle_worker_and_starting_does_not_make_one(
    kind: str, files: ModelFiles, tmp_path: Path
) -> None:
    async with engine_lab(kind, tmp_path, files, 2) as lab:
        worker = lab.workers[0]
        pid = await worker.start()
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


async def test_what_it_cannot_do_is_refused_before_anything_starts(tmp_path: Path, files: ModelFiles) -> None:
    place = Place(tmp_path, "127.0.0.1", free_port(), 1)
    engine = DistributedLlamaEngine(place, dllama_program(tmp_path, real=False))

    async def start(**extra: object) -> None:
        params = StartEngineParams.model_validate({"model_sha256": "0" * 64, **extra})
        await engine.start(files.model, params, quiet, tokenizer=files.tokenizer)

    with pytest.raises(ConfigurationError, match="cannot run this model on 3 nodes"):
        await start(workers=("127.0.0.1:1", "127.0.0.1:2"))
    with pytest.raises(ConfigurationError, match="cannot run this model on 8 nodes"):
        await start(workers=tuple(f"127.0.0.1:{n}" for n in range(1, 8)))
    with pytest.raises(ConfigurationError, match="needs a tokenizer"):
        await engine.start(files.model, StartEngineParams(model_sha256="0" * 64), quiet)
    absent = DistributedLlamaEngine(place, tmp_path / "none")
    assert not absent.available
    with pytest.raises(ConfigurationError, match="program is not here"):
        await DllamaWorker(place, tmp_path / "none").start()


def test_damaged_files_are_data_errors(tmp_path: Path, files: ModelFiles) -> None:
    assert files.tokenizer is not None
    for source, read in ((files.model, read_model_header), (files.tokenizer, DllamaTokenizer.read)):
        content = source.read_bytes()
        for damaged in (b"", content[:7], content[:40], b"GGUF" + content[4:], content[:4] + b"\xff\xff\xff\x7f"):
            path = tmp_path / "damaged"
            path.write_bytes(damaged)
            with pytest.raises(DataError):
                read(path)


def test_texts_are_cut_to_exact_token_counts(files: ModelFiles) -> None:
    assert files.tokenizer is not None
    tokenizer = DllamaTokenizer.read(files.tokenizer)
    for count in (1, 2, 3, 17, 100):
        text = tokenizer.text_of_length("Hello the and then\nan other in the <|im_start|>", count)
        assert len(tokenizer.encode(text)) == count
    with pytest.raises(ConfigurationError, match="no cut"):
        cut_to_length("ab", 3, lambda text: 2 * len(text))
    with pytest.raises(ConfigurationError, match="empty prompt"):
        cut_to_length("", 3, len)


def test_the_transcript_survives_pieces_with_line_breaks() -> None:
    said = Transcript(b"two\nlines")
    lines = [
        "🧠 CPU: avx2\n", "two\n", "lines\n", "💿 Weights loaded\n", "two\n", "lines\n",
        "🔷️ Eval   12 ms Sync    3 ms | Sent    10 kB Recv    11 kB | (5 tokens)\n",
        "🔶 Pred    2 ms Sync    1 ms | Sent     1 kB Recv     1 kB |  the\n",
        "🔶 Pred    2 ms Sync    1 ms | Sent     1 kB Recv     1 kB | \n", "\n",
        "🔶 Pred    2 ms Sync    1 ms | Sent     1 kB Recv     1 kB | ~\n",
        "\n", "Evaluation\n", "   nBatches: 32\n", "    nTokens: 5\n", "Prediction\n", "    nTokens: 3\n",
    ]  # fmt: skip
    for at, line in enumerate(lines):
        said.feed(line.encode(), at)
    assert (said.started_utc_ns, said.eval_utc_ns, said.pred_utc_ns) == (5, [6], [7, 8, 10])
    assert said.pieces == [b" the", b"", b"~"]
    assert (said.n_evaluated, said.n_tokens) == (5, [5, 3])
    said.feed(b"Cannot connect to 10.0.0.2:9998 (Connection refused)\n", 99)
    said.feed("🚨 Critical error: Cannot connect\n".encode(), 99)
    assert (said.unreachable, said.critical) == ("10.0.0.2:9998", "Cannot connect")
