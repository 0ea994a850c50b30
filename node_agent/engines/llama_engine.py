"""The engine process: holds one model, answers the agent over a Unix socket, one request at a time.

`python -m node_agent.engines.llama_engine --socket STATE_DIR/engine.sock`

It is a process of its own because llama.cpp ends the process when an RPC worker dies. It outlives the agent; while a
workload runs it writes nothing to disk and speaks at most once in two seconds.
"""

import argparse
import contextlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from node_agent.engines.generation import Generator
from node_agent.engines.keepalive import keeping_alive
from node_agent.engines.rpc_devices import connect, memory_bytes
from node_agent.engines.scoring import Scorer
from node_agent.engines.tokens import Tokenizer
from node_agent.engines.wire import EngineStatus, LoadedModel, LoadRequest, short_path
from node_agent.engines.workloads import Workloads
from shared.kernel.defects import reason_of
from shared.kernel.errors import BugError, ConfigurationError, EpiError, InfrastructureError
from shared.llama.buffers import read_buffers
from shared.llama.layer_split import layer_shares, layers_by_memory
from shared.llama.model import LLAMA_BUILD, Context, Model, api, echo_errors, listening, offloads_to_gpu
from shared.llama.sizes import batch_tokens, most_outputs
from shared.wire.node_jobs.engines import EngineBuffers
from shared.wire.node_jobs.workloads import DecodeParams, GenerateParams, PrefillParams, ScoreParams

_FIRST_PROGRESS_S = 0.1
_PROGRESS_EVERY_S = 2.0


class ClientGoneError(Exception):
    """The agent closed the connection: stop the work."""


class Client:
    """One connection from the agent."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rwb")
        self._next_report = 0.0
        self._wait_s = _FIRST_PROGRESS_S

    def requests(self) -> Any:
        """Yield the lines of the connection."""
        yield from self._file

    def send(self, answer: dict[str, Any]) -> None:
        """Send one answer line."""
        try:
            self._file.write(json.dumps(answer).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise ClientGoneError from error

    def tick(self, fraction: float, message: str) -> None:
        """Report progress, ever more rarely up to every two seconds, and notice when the agent hung up.

        The first reports come soon, so that a short workload is seen too; a long one stays as quiet as can be.
        """
        if select.select([self._connection], [], [], 0)[0] and not self._connection.recv(1, socket.MSG_PEEK):
            raise ClientGoneError
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + self._wait_s
            self._wait_s = min(2 * self._wait_s, _PROGRESS_EVERY_S)
            self.send({"progress": min(max(fraction, 0.0), 1.0), "message": message})


class Engine:
    """The loaded model and what can be done with it."""

    def __init__(self) -> None:
        self._model: Model | None = None
        self._context: Context | None = None
        self._loaded: LoadedModel | None = None
        self._scorer: Scorer | None = None
        self._workloads: Workloads | None = None
        self._generator: Generator | None = None

    def handle(self, op: str, params: Any, client: Client) -> BaseModel:
        """Do one request.

        Raises:
            EpiError: what went wrong, for the agent to report.
        """
        if op == "load":
            with keeping_alive():
                self.load(LoadRequest.model_validate(params), client)
        elif op == "unload":
            self.unload()
        elif op != "status":
            if self._workloads is None or self._scorer is None or self._generator is None:
                raise InfrastructureError("no model is loaded", hint="start the engine first")
            if op == "prefill":
                return self._workloads.prefill(PrefillParams.model_validate(params), client.tick)
            if op == "decode":
                return self._workloads.decode(DecodeParams.model_validate(params), client.tick)
            if op == "score":
                return self._scorer.score(ScoreParams.model_validate(params), client.tick)
            if op == "generate":
                return self._generator.generate(GenerateParams.model_validate(params), client.tick)
            raise BugError(f"unknown operation {op!r}")
        return EngineStatus(pid=os.getpid(), build=LLAMA_BUILD, loaded=self._loaded)

    def load(self, request: LoadRequest, client: Client) -> None:
        """Load a model over the workers.

        Raises:
            EpiError: the file is unfit, a worker does not answer, memory is short.
        """
        self.unload()
        start = time.monotonic()
        path = Path(request.model_path)
        with Model(path, vocab_only=True) as head:
            architecture = head.metadata("general.architecture") or "unknown"
            n_layers = int(head.metadata(f"{architecture}.block_count") or 0)
            experts = head.metadata(f"{architecture}.expert_count")
        if request.experts_per_token is not None and not 1 <= request.experts_per_token <= int(experts or 0):
            raise ConfigurationError(
                f"{request.experts_per_token} experts a token cannot be chosen from {int(experts or 0)}",
                where=architecture, hint="a dense model has no experts" if not experts else "",
            )  # fmt: skip
        if request.gpu_layers and not offloads_to_gpu():
            raise ConfigurationError(
                f"gpu_layers = {request.gpu_layers}, and llama.cpp was built here without a GPU backend",
                where="llama.cpp", hint="say gpu_layers = 0, or install the engine built with CUDA",
            )  # fmt: skip
        devices = [connect(endpoint) for endpoint in request.workers]
        said: list[str] = []
        with listening(said.append):
            self._make(path, n_layers, devices, request, client)
        assert self._model is not None and self._context is not None
        outputs = most_outputs(self._model.n_vocab, request.sequences)
        sizes = {"context_tokens": request.context_tokens, "sequences": request.sequences}
        tokenizer = Tokenizer(self._model)
        self._scorer = Scorer(self._context, tokenizer, most_outputs=outputs, **sizes)
        self._workloads = Workloads(self._context, tokenizer, **sizes)
        self._generator = Generator(self._model, self._context, tokenizer, context_tokens=request.context_tokens)
        # One token through every worker, so that the first measured request finds everything in place.
        self._context.decode([0], [0])
        self._context.clear()
        self._loaded = LoadedModel(
            request=request, architecture=architecture, n_layers=n_layers, n_vocab=self._model.n_vocab,
            load_seconds=time.monotonic() - start, buffers=_told("".join(said)),
        )  # fmt: skip

    def _make(self, path: Path, n_layers: int, devices: list[int], request: LoadRequest, client: Client) -> None:
        self._model = Model(
            path, experts_per_token=request.experts_per_token, devices=devices,
            device_shares=layer_shares(layers_by_memory(n_layers, [memory_bytes(e) for e in request.workers])),
            gpu_layers=request.gpu_layers, on_progress=lambda fraction: client.tick(fraction, "loading the model"),
        )  # fmt: skip
        self._context = Context(
            self._model, context_tokens=request.context_tokens, batch_tokens=batch_tokens(request.context_tokens),
            sequences=request.sequences, threads=request.threads, cache_f32=request.cache_f32,
            most_outputs=most_outputs(self._model.n_vocab, request.sequences),
        )  # fmt: skip

    def unload(self) -> None:
        """Free what is loaded."""
        self._loaded = self._scorer = self._workloads = self._generator = None
        if self._context is not None:
            self._context.close()
        if self._model is not None:
            self._model.close()
        self._context = self._model = None


def _told(log: str) -> tuple[EngineBuffers, ...]:
    """Return what llama.cpp's log says it has allocated, the engine's own process first."""
    found = sorted(read_buffers(log), key=lambda one: one.endpoint)
    return tuple(
        EngineBuffers(
            worker=one.endpoint or None, model=one.model, cache=one.cache, compute=one.compute, output=one.output
        )
        for one in found
    )  # fmt: skip


def answer(engine: Engine, line: bytes, client: Client) -> dict[str, Any]:
    """Do the request of one line; errors become answers, except a client that is gone."""
    try:
        request = json.loads(line)
        return {"result": engine.handle(request["op"], request["params"], client).model_dump(mode="json")}
    except EpiError as error:
        return {"error": error.to_payload().model_dump()}
    except (ValueError, KeyError, TypeError) as error:
        return {"error": BugError(f"bad request to the engine process: {reason_of(error)}").to_payload().model_dump()}


def serve(path: Path) -> None:
    """Answer one connection after another until the process is ended."""
    engine = Engine()
    path.unlink(missing_ok=True)
    os.umask(0o077)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with short_path(path) as short:
        listener.bind(short)
    listener.listen(4)
    while True:
        connection, _ = listener.accept()
        with connection:
            client = Client(connection)
            try:
                for line in client.requests():
                    client.send(answer(engine, line, client))
            except (ClientGoneError, ConnectionError):
                continue


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the agent, which then ends its engine
    with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # an abort must not write gigabytes of core file
    os.environ["GGML_NO_BACKTRACE"] = "1"
    api()
    echo_errors(sys.stderr)
    serve(arguments.socket)


if __name__ == "__main__":
    main()
