"""`epi benchmark run` against a real node agent and engine: killed in the middle, it goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.benchmarks_oracle import write_task
from tests.support.node_lab import agents
from tests.support.node_tiny_model import write_tiny_model

QUESTIONS = 120


def _command(folder: Path, url: str, model: str, out: str, *more: str) -> list[str]:
    return [
        sys.executable, "-c", "from shared.cli import main; main()", "benchmark", "run", "arithmetic:2",
        "--node", url, "--token-file", str(folder / "token"), "--model", model, "--task-dir", str(folder),
        "--out", str(folder / out), "--context-tokens", "2048", "--threads", "1", *more,
    ]  # fmt: skip


def _answers(path: Path) -> list[Any]:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["n"] == {"arithmetic": QUESTIONS}
    return [(q["question_id"], q["choice"], q["log_likelihoods"]) for q in result["questions"]]


def test_a_killed_pass_goes_on(tmp_path: Path) -> None:
    write_task(tmp_path, "arithmetic", questions=QUESTIONS)
    tiny = write_tiny_model(tmp_path / "tiny.gguf")
    with agents(tmp_path, "one") as (one,):
        model = one.store(tiny)
        kept = tmp_path / "stopped.json.answers.jsonl"
        stopped = subprocess.Popen(
            _command(tmp_path, one.url, model, "stopped.json", "--questions-per-job", "10"), stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and (not kept.exists() or kept.read_bytes().count(b"\n") < 31):
            assert stopped.poll() is None
            time.sleep(0.02)
        os.kill(stopped.pid, signal.SIGKILL)
        stopped.wait(10)
        assert not (tmp_path / "stopped.json").exists()
        again = subprocess.run(
            _command(tmp_path, one.url, model, "stopped.json", "--questions-per-job", "10"),
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        assert "questions were answered before" in again.stderr
        assert "arithmetic" in again.stdout
        assert not kept.exists()
        subprocess.run(
            _command(tmp_path, one.url, model, "whole.json"), capture_output=True, timeout=120, check=True
        )  # fmt: skip
    for (name, choice, values), (same, chosen, expected) in zip(
        _answers(tmp_path / "stopped.json"), _answers(tmp_path / "whole.json"), strict=True
    ):
        assert (name, choice) == (same, chosen)
        # Other batches, other rounding in the F16 cache.
        assert max(abs(a - b) for a, b in zip(values, expected, strict=True)) < 0.02
