"""A disk that is full while a model is made: every writer says so, leaves nothing, and works when there is room."""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.checkpoints.surgery import apply_plan
from shared.kernel.errors import StorageError
from shared.kernel.records import SurgeryPlan
from shared.wire.client import AgentClient
from shared.wire.surgeon_jobs import PrepareParams, PrepareResult
from shared.wire.surgeries import ApplyParams
from surgeon.conversion.quantize import quantize
from surgeon.conversion.to_dllama import convert_model
from surgeon.conversion.to_gguf import convert
from surgeon.observation import statistics
from surgeon.observation.corpus import load_corpus
from surgeon.observation.observe import ObserveOptions, observe
from tests.support.checkpoint_factory import TEXT, make_checkpoint
from tests.support.small_disk import small_disk

pytestmark = pytest.mark.mounts

PLAN = SurgeryPlan(n_experts=12, kept=((0, 2, 3, 5, 7, 8),) * 4)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_checkpoint(folder / "hf", n_layers=4, n_experts=12, experts_per_token=3)
    config = json.loads((folder / "hf" / "config.json").read_text())
    (folder / "hf" / "config.json").write_text(json.dumps(config | {"eos_token_id": 383}))
    convert(folder / "hf", folder / "f16.gguf")
    (folder / "text.txt").write_text(TEXT)
    return folder


def _observe(models: Path, target: Path) -> None:
    corpus = load_corpus([models / "text.txt"])
    found = observe(models / "f16.gguf", corpus, ObserveOptions(window_tokens=128, max_tokens=256))
    statistics.save(found, target)


MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "convert": lambda models, target: convert(models / "hf", target),
    "convert_dllama": lambda models, target: convert_model(models / "hf", target),
    "quantize": lambda models, target: quantize(models / "f16.gguf", target, "Q8_0"),
    "quantize_k": lambda models, target: quantize(models / "f16.gguf", target, "Q4_K_M"),
    "apply": lambda models, target: apply_plan(models / "f16.gguf", PLAN, target),
    "observe": _observe,
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("room", [0, 40_000, 150_000])
def test_a_maker_says_that_the_disk_is_full(models: Path, tmp_path: Path, maker: str, room: int) -> None:
    make = MAKERS[maker]
    with small_disk(tmp_path / "disk", 4) as disk:
        target = disk.path / "result"
        disk.fill(but_bytes=room)
        if maker == "observe" and room:
            disk.fill()
        with pytest.raises(StorageError, match="full") as refused:
            make(models, target)
        assert refused.value.where == str(target)
        assert "make room" in refused.value.hint
        assert [path.name for path in disk.path.iterdir()] == ["filler"], "nothing is left"
        disk.empty()
        make(models, target)
        assert target.exists()


@pytest.mark.parametrize("source", ["f16.gguf", "hf"])
def test_surgery_says_that_the_disk_became_full_while_it_wrote(models: Path, tmp_path: Path, source: str) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        target = disk.path / "result"
        with pytest.raises(StorageError, match="the disk is full"):
            apply_plan(models / source, PLAN, target, on_progress=lambda written, total: disk.fill())
        assert [path.name for path in disk.path.iterdir()] == ["filler"], "nothing is left"
        disk.empty()
        apply_plan(models / source, PLAN, target)


async def test_the_surgeons_jobs_say_so_and_succeed_when_there_is_room(models: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (tmp_path / "token").write_text("a-token-for-this-test")
    with small_disk(tmp_path / "state", 6) as disk:
        config = tmp_path / "surgeon.toml"
        config.write_text(
            f'name = "spark"\nport = {port}\ntoken_file = "token"\nstate_dir = "state"\n'
            f'[models]\ntiny = "{models}/hf"\n[corpora]\n'
        )
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "surgeon", "--config", str(config))
        client = AgentClient(f"http://127.0.0.1:{port}", "a-token-for-this-test")
        try:
            await client.health()
            prepare = PrepareParams(model="tiny", quantization="Q8_0")
            for number, room in enumerate((300_000, 100_000)):
                disk.fill(but_bytes=room)
                with pytest.raises(StorageError, match="the disk is full") as refused:
                    await client.run(f"c/prepare/{number}", "prepare", prepare, timeout_s=60)
                assert "make room" in refused.value.hint
                disk.empty()
            base = PrepareResult.model_validate(await client.run("c/prepare/9", "prepare", prepare, timeout_s=60))
            apply = ApplyParams(base_sha256=base.base_sha256, plan=PLAN)
            await client.run("c/apply/1", "apply", apply, timeout_s=60)
            assert (await client.health()).status == "ok"
        finally:
            await client.close()
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 15)
