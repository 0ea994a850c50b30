"""Children that write without end: read to their end, kept only in part, and their last words are told."""

import asyncio
import sys
import tracemalloc
from pathlib import Path

import pytest

from node_agent.processes import tail
from shared.files.last_lines import last_lines
from shared.kernel.errors import InfrastructureError
from shared.kernel.progress import no_progress
from shared.service.child_output import KEPT_BYTES, last_words, outputs
from surgeon.work.child import run_in_child
from surgeon.work.tasks import EvaluateTask

MIB = 1 << 20
LOUD = "import sys\nfor _ in range(64): sys.{stream}.write('x' * (1 << 20))\nsys.{stream}.write('the end')\n"


@pytest.fixture
def peak() -> "object":
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_only_the_last_of_an_output_is_kept(stream: str, peak) -> None:  # type: ignore[no-untyped-def]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOUD.format(stream=stream), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    found = await outputs(process)
    own = found[stream == "stderr"]
    assert process.returncode == 0 and len(own) == KEPT_BYTES and own.endswith(b"xthe end")
    assert found[stream == "stdout"] == b"" and peak() < 8 * MIB


async def test_a_stream_that_says_little_is_kept_whole() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(b"few words")
    stream.feed_eof()
    assert await last_words(stream) == b"few words"


def child_that(does: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> EvaluateTask:
    """Let the surgeon's child be another program, as a crashing library makes it."""
    script = folder / "python"
    script.write_text(f"#!{sys.executable}\n{does}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return EvaluateTask(model=folder / "x.gguf")


async def test_the_surgeons_child_may_complain_without_end(  # type: ignore[no-untyped-def]
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peak
) -> None:
    task = child_that(LOUD.format(stream="stderr") + "sys.exit(3)", tmp_path, monkeypatch)
    with pytest.raises(InfrastructureError, match=r"ended with 3: x+the end"):
        await run_in_child(task, no_progress)
    assert peak() < 8 * MIB


@pytest.mark.parametrize(
    "does",
    [
        "print('no message', flush=True)\nimport time; time.sleep(60)",
        "print('[1]', flush=True)\nimport time; time.sleep(60)",
    ],
)
async def test_the_surgeons_child_may_say_nonsense(does: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = child_that(does, tmp_path, monkeypatch)
    async with asyncio.timeout(20):
        with pytest.raises(InfrastructureError, match="says what is no message"):
            await run_in_child(task, no_progress)


def test_the_end_of_a_log_is_read_however_long_it_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.truncate(6 << 30)
        file.seek(0, 2)
        file.write(b"\none\n\n  two \n")
    assert last_lines(log, 2) == ["one", "  two "] and tail(log, 2) == "one | two"
    assert last_lines(tmp_path / "none", 2) == []
