"""The llama.cpp engine as the agent sees it: starts, finds, asks and ends the engine process and the RPC worker.

Not here: anything inside those processes (llama_engine, rpc_worker).
"""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError

from node_agent.engines.base import Engine, EngineSettings, Place, Worker, wait_until
from node_agent.engines.wire import SOCKET_NAME, EngineGoneError, EngineStatus, LoadRequest, Operation, call
from node_agent.processes import Supervised
from shared.files.atomic import write_file
from shared.kernel.errors import InfrastructureError
from shared.kernel.progress import Progress
from shared.llama.layer_split import local_last
from shared.llama.model import LLAMA_BUILD
from shared.wire.engines.base import EngineDescription
from shared.wire.engines.llama_cpp import ENGINE as DESCRIPTION
from shared.wire.node_jobs.engines import StartEngineParams, StartEngineResult
from shared.wire.node_jobs.workloads import (
    DecodeParams,
    GenerateParams,
    GenerateResult,
    PrefillParams,
    ScoreParams,
    ScoreResult,
    WorkloadResult,
)

RPC_WORKER_MODULE = "node_agent.engines.rpc_worker"
_CONNECT_S = 3.0
# A waiting OpenMP thread must sleep: on a busy machine spinning ones starve the others and burn joules.
_ENVIRONMENT = {"OMP_WAIT_POLICY": "passive", "GGML_NO_BACKTRACE": "1", "PYTHONUNBUFFERED": "1"}


async def listens(endpoint: str) -> bool:
    """Tell whether somebody accepts connections at host:port (harmless for llama.cpp's workers)."""
    host, _, port = endpoint.rpartition(":")
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), _CONNECT_S)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def silent_workers(endpoints: Sequence[str]) -> list[str]:
    """Return those endpoints at which nobody listens."""
    answers = await asyncio.gather(*(listens(endpoint) for endpoint in endpoints))
    return [endpoint for endpoint, answer in zip(endpoints, answers, strict=True) if not answer]


class RpcWorker(Worker):
    """This node's RPC worker process."""

    environment = _ENVIRONMENT

    async def _check_port(self) -> None:
        if await listens(self.endpoint):
            raise InfrastructureError(
                "another process listens where the RPC worker should", where=self.endpoint,
                hint="end it or choose another worker_port",
            )  # fmt: skip

    def _command(self) -> list[str]:
        return [
            sys.executable, "-m", RPC_WORKER_MODULE,
            "--host", self._host, "--port", str(self._port), "--threads", str(self._threads),
        ]  # fmt: skip

    def recognises(self, command: Sequence[str]) -> bool:
        """Tell it by its module."""
        return RPC_WORKER_MODULE in command


class LlamaCppEngine(Engine):
    """One engine process on this node, its layers on RPC workers anywhere."""

    role = "engine"
    answer_s = 60.0
    """How long a running process may take to answer; a cancelled workload ends after its present batch."""
    description = DESCRIPTION
    build = LLAMA_BUILD

    def __init__(self, place: Place) -> None:
        self._state_dir = place.state_dir
        self._own_worker = place.worker_endpoint
        self._socket = place.state_dir / SOCKET_NAME
        self._loaded_file = place.state_dir / "engine.json"
        self._process: Supervised | None = None
        self._workers: tuple[str, ...] = ()

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None and self._process.running else None

    async def find(self) -> bool:
        """Look for an engine process that an earlier agent started; what it has loaded was written down.

        It is not asked: it may be in the middle of a batch, and the agent shall answer its own callers at once.
        """
        self._process = Supervised.find(self.role, self._state_dir)
        if self._process is not None:
            with contextlib.suppress(OSError, ValidationError):
                self._workers = LoadRequest.model_validate_json(self._loaded_file.read_text()).workers
        return self._process is not None

    async def start(
        self, model: Path, params: StartEngineParams, progress: Progress, *, tokenizer: Path | None = None
    ) -> StartEngineResult:
        """Load `model` over `params.workers`; a running engine process is used again. The tokenizer is in the model.

        Raises:
            InfrastructureError: a worker does not answer (it is named), or the process died.
            DataError: llama.cpp refuses the file.
        """
        if silent := await silent_workers(params.workers):
            raise InfrastructureError(
                "the RPC worker does not answer", where=", ".join(silent), hint="start it with the start_worker job"
            )
        await self._ensure_process()
        request = LoadRequest(
            model_path=str(model), model_sha256=params.model_sha256,
            workers=tuple(local_last(params.workers, self._own_worker)), context_tokens=params.context_tokens,
            sequences=params.sequences, threads=params.threads, experts_per_token=params.experts_per_token,
            cache_f32=params.cache_f32, gpu_layers=params.gpu_layers,
        )  # fmt: skip
        self._workers = request.workers
        write_file(self._loaded_file, request.model_dump_json(), durable=False)
        status = EngineStatus.model_validate(await self._ask("load", request.model_dump_json(), progress))
        loaded = status.loaded
        if loaded is None:
            raise InfrastructureError("the engine process loaded nothing", where=str(model))
        return StartEngineResult(
            pid=status.pid, build=status.build, architecture=loaded.architecture, n_layers=loaded.n_layers,
            n_vocab=loaded.n_vocab, context_tokens=loaded.request.context_tokens, load_seconds=loaded.load_seconds,
            buffers=loaded.buffers,
        )  # fmt: skip

    async def stop(self) -> None:
        """End the engine process; quiet when there is none."""
        if self._process is not None:
            await self._process.stop()
            self._process = None
        self._socket.unlink(missing_ok=True)

    async def prefill(self, params: PrefillParams, progress: Progress) -> WorkloadResult:
        """Evaluate prompts."""
        return WorkloadResult.model_validate(await self._work("prefill", params.model_dump_json(), progress))

    async def decode(self, params: DecodeParams, progress: Progress) -> WorkloadResult:
        """Generate tokens greedily."""
        return WorkloadResult.model_validate(await self._work("decode", params.model_dump_json(), progress))

    async def score(self, params: ScoreParams, progress: Progress) -> ScoreResult:
        """Read log-likelihoods."""
        return ScoreResult.model_validate(await self._work("score", params.model_dump_json(), progress))

    async def generate(self, params: GenerateParams, progress: Progress) -> GenerateResult:
        """Write texts greedily."""
        return GenerateResult.model_validate(await self._work("generate", params.model_dump_json(), progress))

    async def _work(self, op: Operation, params: str, progress: Progress) -> dict[str, Any]:
        if self._process is not None and not self._process.running:
            raise InfrastructureError(f"the engine {self._process.describe_end()}", hint="start the engine again")
        if self._process is None:
            raise InfrastructureError("no engine runs on this node", hint="start it with the start_engine job")
        return await self._ask(op, params, progress)

    @property
    def available(self) -> bool:
        """Whether llama-cpp-python is installed here."""
        return find_spec("llama_cpp") is not None

    async def _ensure_process(self) -> None:
        """Start the engine process unless one runs and answers; one that hangs is ended.

        It hangs in a system call when a machine with a worker vanished without a word (power, cable).
        """
        if self.pid is not None:
            try:
                await asyncio.wait_for(self._ask("status", "{}", _quiet), self.answer_s)
                return
            except (InfrastructureError, TimeoutError):
                await self.stop()
        self._socket.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "node_agent.engines.llama_engine", "--socket", str(self._socket)]
        self._process = Supervised.start(self.role, argv, self._state_dir, _ENVIRONMENT)

        async def bound() -> bool:
            return self._socket.exists()

        await wait_until(self._process, bound, str(self._socket))

    async def _ask(self, op: Operation, params: str, progress: Progress) -> dict[str, Any]:
        """Ask the engine process; when it dies, say so and name the worker whose death took it along."""
        process, workers = self._process, self._workers
        if process is None:
            raise InfrastructureError("the engine process is gone")
        try:
            return await call(self._socket, op, params, progress)
        except EngineGoneError as gone:
            try:
                await asyncio.wait_for(process.exited.wait(), 10.0)
            except TimeoutError:
                raise InfrastructureError(f"the engine is silent: {gone.message}", where=str(process.pid)) from gone
            silent = await silent_workers(workers)
            if silent:
                raise InfrastructureError(
                    f"the RPC worker died and the engine with it; the engine {process.describe_end()}",
                    where=", ".join(silent), hint="start the worker and the engine again",
                ) from gone  # fmt: skip
            raise InfrastructureError(
                f"the engine {process.describe_end()}", where=f"{op} over {len(workers)} workers",
                hint="start the engine again",
            ) from gone  # fmt: skip


def _quiet(_fraction: float, _message: str) -> None:
    pass


class LlamaCppSettings(EngineSettings):
    """`[engines."llama.cpp"]`: nothing to set; the worker's address and threads are the agent's own settings."""

    description: ClassVar[EngineDescription] = DESCRIPTION

    def make_engine(self, place: Place) -> Engine:
        """Return the engine."""
        return LlamaCppEngine(place)

    def make_worker(self, place: Place) -> Worker:
        """Return the RPC worker."""
        return RpcWorker(place)


ENGINE = LlamaCppSettings
