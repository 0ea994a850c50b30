"""The distributed-llama engine: one `dllama inference` process a request, workers watched by their own nodes.

What shapes this file (distributed-llama at commit 8d624a7):

- The root holds the files and streams slices to the workers at every start, so each workload is one request: loading
  between two of them would lie inside the window. Its energy is measured here; its answers are not used, because it
  replaces the last prompt token. Accuracy is scored by llama.cpp on the same weights.
- A bare TCP connection ends an idle worker. Its port is never probed while it may be needed: whether it listens is read
  from the kernel's table of the process's own sockets. Only after a failed run, when every worker has to be started
  again anyway, the others are asked, to name the one that died.
- Output is block-buffered on a pipe: `stdbuf -oL`. `--steps` counts positions: N generated tokens after a prompt of n
  tokens are n - 1 + N steps. Tokens are counted with the engine's own encoder and checked against what it reports.

Not here: the formats (dllama_files), the lines it prints (dllama_output).
"""

import asyncio
import contextlib
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from node_agent.engines.base import Engine, EngineSettings, Place, Worker
from node_agent.engines.dllama_files import Q40, DllamaTokenizer, check_nodes, read_model_header
from node_agent.engines.dllama_output import Transcript
from node_agent.processes import Supervised
from shared.files.durability import hash_file
from shared.kernel.clock import utc_ns
from shared.kernel.errors import BugError, ConfigurationError, InfrastructureError
from shared.kernel.progress import Progress
from shared.kernel.records import TokenLedger
from shared.wire.engines.base import EngineDescription
from shared.wire.engines.distributed_llama import ENGINE as DESCRIPTION
from shared.wire.node_jobs.engines import StartEngineParams, StartEngineResult
from shared.wire.node_jobs.workloads import (
    DecodeParams,
    PrefillParams,
    RequestRecord,
    WorkloadResult,
)

DLLAMA_BUILD = "distributed-llama 8d624a7 (v0.16.4+1)"
_GONE_AFTER_S = 5.0
_PROGRESS_EVERY_NS = 2_000_000_000


def find_program(configured: Path | None) -> Path:
    """Return the `dllama` to run: the configured one, else the one on the PATH.

    Raises:
        ConfigurationError: there is none.
    """
    found = str(configured) if configured is not None else shutil.which("dllama")
    if found is None or not Path(found).is_file():
        raise ConfigurationError(
            "distributed-llama's program is not here", where=found or "dllama",
            hint="build it (make dllama) and set `program` in [engines.distributed-llama] of the agent's settings",
        )  # fmt: skip
    return Path(found)


class DllamaWorker(Worker):
    """This node's `dllama worker` process."""

    def __init__(self, place: Place, program: Path | None) -> None:
        super().__init__(place)
        self._program = program

    def recognises(self, command: Sequence[str]) -> bool:
        """Tell it by the program's mode."""
        return "worker" in command

    async def _check_port(self) -> None:
        """Leave it to the program: looking would end an idle worker that may listen there."""

    def _command(self) -> list[str]:
        return [
            *_line_buffered(), str(find_program(self._program)), "worker", "--host", self._host,
            "--port", str(self._port), "--nthreads", str(self._threads),
        ]  # fmt: skip


def _line_buffered() -> list[str]:
    stdbuf = shutil.which("stdbuf")
    if stdbuf is None:
        raise ConfigurationError("`stdbuf` is missing", hint="apt install coreutils")
    return [stdbuf, "-oL"]


@dataclass(frozen=True)
class _Loaded:
    """What `start` agreed on."""

    model: Path
    tokenizer_file: Path
    tokenizer: DllamaTokenizer
    params: StartEngineParams
    seq_len: int


class DistributedLlamaEngine(Engine):
    """Runs `dllama inference` on the root node."""

    role = "engine"
    pause_s = 2.0
    """Between two runs: a worker closes its port and opens it anew, and one that a root misses ends all the others."""
    description = DESCRIPTION
    build = DLLAMA_BUILD

    def __init__(self, place: Place, program: Path | None) -> None:
        self._state_dir = place.state_dir
        self._program = program
        self._loaded: _Loaded | None = None
        self._last_end_s = float("-inf")
        self._process: Supervised | None = None

    @property
    def pid(self) -> int | None:
        """Process id while a request runs."""
        return self._process.pid if self._process is not None and self._process.running else None

    async def find(self) -> bool:
        """A request does not outlive its agent: one that is left over is ended."""
        return False

    async def start(
        self, model: Path, params: StartEngineParams, progress: Progress, *, tokenizer: Path | None = None
    ) -> StartEngineResult:
        """Check that this model can run on these workers; the weights are loaded by each request.

        Raises:
            ConfigurationError: the number of nodes, K, weights or the missing tokenizer make it impossible.
            DataError: a file is damaged.
        """
        progress(0.0, "checking the model")
        program = await asyncio.to_thread(hash_file, find_program(self._program))
        header = read_model_header(model)
        check_nodes(header, len(params.workers) + 1)
        if tokenizer is None:
            raise ConfigurationError("distributed-llama needs a tokenizer file", hint="give tokenizer_sha256")
        if params.experts_per_token is not None and params.experts_per_token != header.n_active_experts:
            raise ConfigurationError(
                f"distributed-llama runs the model's K of {header.n_active_experts}, not {params.experts_per_token}",
                hint="write K into the model file, or use llama.cpp",
            )
        if header.n_experts and header.weight_type != Q40:
            raise ConfigurationError("distributed-llama runs Qwen3-MoE with Q40 weights only", where=model.name)
        seq_len = min(header.seq_len, params.context_tokens)
        self._loaded = _Loaded(model, tokenizer, DllamaTokenizer.read(tokenizer), params, seq_len)
        return StartEngineResult(
            pid=0, engine="distributed-llama", build=f"{DLLAMA_BUILD}, program {program[:12]}",
            architecture=header.architecture, n_layers=header.n_layers, n_vocab=header.vocab_size,
            context_tokens=seq_len, load_seconds=0.0,
        )  # fmt: skip

    async def stop(self) -> None:
        """End a running request and forget the model."""
        self._loaded = None
        await self._end()

    async def prefill(self, params: PrefillParams, progress: Progress) -> WorkloadResult:
        """Evaluate one prompt of exactly `tokens_each` tokens.

        The program generates at least one token after it; that token lies outside the window.

        Raises:
            ConfigurationError: more than one request, or the prompt does not fit.
        """
        loaded = self._ready(params.prompts, params.repeats)
        text = loaded.tokenizer.text_of_length(params.prompts[0], params.tokens_each + 1)
        said = await self._run(loaded, text, params.tokens_each + 1, params.tokens_each, 1, progress)
        start, end = said.started_utc_ns, said.eval_utc_ns[-1] if said.eval_utc_ns else None
        return _result(start, end, TokenLedger(prompt=params.tokens_each), None)

    async def decode(self, params: DecodeParams, progress: Progress) -> WorkloadResult:
        """Generate exactly `tokens_each` tokens greedily after one prompt; end-of-text does not stop the program.

        Raises:
            ConfigurationError: more than one request, or it does not fit.
        """
        loaded = self._ready(params.prompts, params.repeats)
        n_prompt = len(loaded.tokenizer.encode(params.prompts[0]))
        steps = n_prompt - 1 + params.tokens_each
        said = await self._run(loaded, params.prompts[0], steps, n_prompt - 1, params.tokens_each, progress)
        start = said.eval_utc_ns[-1] if said.eval_utc_ns else said.started_utc_ns
        ledger = TokenLedger(generated=params.tokens_each, prompt=1, cached=n_prompt - 1)
        return _result(start, said.pred_utc_ns[-1], ledger, hashlib.sha256(b"".join(said.pieces)).hexdigest())

    @property
    def available(self) -> bool:
        """Whether its program is here."""
        try:
            find_program(self._program)
        except ConfigurationError:
            return False
        return True

    def _ready(self, prompts: Sequence[str], repeats: int) -> _Loaded:
        if self._loaded is None:
            raise InfrastructureError("no engine runs on this node", hint="start it with the start_engine job")
        if len(prompts) * repeats != 1:
            raise ConfigurationError(
                f"distributed-llama takes one request a workload, not {len(prompts) * repeats}",
                hint="it loads the weights anew for each; use one longer request",
            )
        return self._loaded

    async def _run(
        self, loaded: _Loaded, prompt: str, steps: int, n_eval: int, n_pred: int, progress: Progress
    ) -> Transcript:
        """Run one request and check that it did exactly what was asked."""
        if steps > loaded.seq_len:
            raise ConfigurationError(
                f"the workload needs {steps} positions, the engine has {loaded.seq_len}",
                hint="start the engine with more context_tokens",
            )
        argv = [
            *_line_buffered(), str(find_program(self._program)), "inference", "--model", str(loaded.model),
            "--tokenizer", str(loaded.tokenizer_file), "--buffer-float-type", "q80", "--prompt", prompt,
            "--steps", str(steps), "--nthreads", str(loaded.params.threads), "--temperature", "0", "--seed", "1",
            "--max-seq-len", str(loaded.seq_len),
        ]  # fmt: skip
        if loaded.params.workers:
            argv += ["--workers", *loaded.params.workers]
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._last_end_s + self.pause_s - loop.time()) if loaded.params.workers else 0.0)
        said = Transcript(prompt.encode())
        self._process = process = Supervised.start(self.role, argv, self._state_dir, pipe=True)
        told = 0
        try:
            async for line in process.lines():
                now = utc_ns()
                said.feed(line, now)
                if now - told > _PROGRESS_EVERY_NS:
                    told = now
                    progress(len(said.pred_utc_ns) / n_pred, "generating" if said.pieces else "loading or evaluating")
            await process.exited.wait()
        finally:
            await self._end()
            self._last_end_s = loop.time()
        if process.exit_status != 0 or len(said.pieces) != n_pred:
            await self._explain(loaded, process, said)
        if said.n_evaluated != n_eval or said.n_tokens != [n_eval, n_pred]:
            raise BugError(
                f"{n_eval} evaluated and {n_pred} generated tokens were asked, {said.n_tokens} were reported",
                where="distributed-llama", hint="its encoder differs from ours: report the prompt and the tokenizer",
            )  # fmt: skip
        return said

    async def _end(self) -> None:
        if self._process is not None:
            await self._process.stop()
            self._process = None

    async def _explain(self, loaded: _Loaded, process: Supervised, said: Transcript) -> None:
        """Raise the error of a failed run, naming the worker that is gone."""
        gone = [said.unreachable] if said.unreachable else await _gone(loaded.params.workers)
        reason = said.critical or process.describe_end()
        if gone:
            raise InfrastructureError(
                f"the distributed-llama worker died or does not answer, and the run with it: {reason}",
                where=", ".join(gone), hint="start the workers of all nodes again (start_worker with restart)",
            )  # fmt: skip
        raise InfrastructureError(
            f"distributed-llama failed: {reason}", where=f"{len(loaded.params.workers) + 1} nodes",
            hint="start the workers of all nodes again (start_worker with restart)",
        )  # fmt: skip


async def _gone(endpoints: Sequence[str]) -> list[str]:
    """Return the workers that refuse connections for some seconds; this ends the idle ones (see the module's text)."""

    async def refuses(endpoint: str) -> bool:
        host, _, port = endpoint.rpartition(":")
        deadline = asyncio.get_running_loop().time() + _GONE_AFTER_S
        while asyncio.get_running_loop().time() < deadline:
            with contextlib.suppress(OSError, TimeoutError):
                _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), _GONE_AFTER_S)
                writer.close()
                return False
            await asyncio.sleep(0.2)
        return True

    answers = await asyncio.gather(*(refuses(endpoint) for endpoint in endpoints))
    return [endpoint for endpoint, answer in zip(endpoints, answers, strict=True) if answer]


def _result(start: int | None, end: int | None, ledger: TokenLedger, output_sha256: str | None) -> WorkloadResult:
    if start is None or end is None:
        raise BugError("distributed-llama did not print what it did", where="start or end of the window")
    request = RequestRecord(start_utc_ns=start, end_utc_ns=end, ledger=ledger)
    return WorkloadResult(
        start_utc_ns=start, end_utc_ns=end, ledger=ledger, requests=(request,), output_sha256=output_sha256
    )


class DistributedLlamaSettings(EngineSettings):
    """`[engines.distributed-llama]`."""

    description: ClassVar[EngineDescription] = DESCRIPTION

    program: Path | None = Field(default=None, description="`dllama`; null: the one on the PATH")

    def make_engine(self, place: Place) -> Engine:
        """Return the engine."""
        return DistributedLlamaEngine(place, self.program)

    def make_worker(self, place: Place) -> Worker:
        """Return the worker."""
        return DllamaWorker(place, self.program)


ENGINE = DistributedLlamaSettings
