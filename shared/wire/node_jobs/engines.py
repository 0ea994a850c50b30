"""Starting and ending engines and their workers, and what an engine can do. Not here: the work they do (workloads)."""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from shared.kernel.records import EngineName, NodeName, Record, Sha256, equals
from shared.wire.engines.base import EngineDescription

WorkerEndpoint = Annotated[
    str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}$")
]
"""host:port of a worker; it goes to an engine's command line, so nothing else."""


class StartWorkerParams(Record):
    """Start this node's worker for `engine`; a running one of that engine is kept unless `restart`."""

    restart: bool = False
    engine: EngineName = "llama.cpp"


class StartWorkerResult(Record):
    """Where the worker listens."""

    endpoint: str = Field(description="host:port")
    pid: int


class StartEngineParams(Record):
    """Load a model on this node's engine, layers split over `workers` (empty: local CPU only)."""

    model_sha256: Sha256
    workers: tuple[WorkerEndpoint, ...] = Field(default=(), max_length=64)
    context_tokens: int = Field(default=2048, ge=64, description="KV cache size in tokens over all sequences")
    sequences: int = Field(default=32, ge=2, le=256, description="parallel sequences for scoring")
    threads: int = Field(default=1, ge=1)
    experts_per_token: int | None = Field(default=None, ge=1, description="K override by model parameter")
    engine: EngineName = "llama.cpp"
    tokenizer_sha256: Sha256 | None = Field(default=None, description="for engines that keep it in a file of its own")
    gpu_layers: int = Field(
        default=0, ge=0, le=10_000, exclude_if=equals(0),
        description="layers on this machine's own GPU; only without workers, since they are CPUs",
    )  # fmt: skip
    cache_f32: bool = Field(default=False, description="KV cache in F32: for comparing with F32 references")

    @model_validator(mode="after")
    def _one_kind_of_device(self) -> Self:
        if self.gpu_layers and self.workers:
            raise ValueError("gpu_layers: layers are either on workers or on this machine's own GPU")
        return self


class EngineBuffers(Record):
    """What an engine says it has allocated on one device, in bytes (llama.cpp logs hundredths of a MiB)."""

    worker: WorkerEndpoint | None = Field(default=None, description="null: in the engine's own process")
    model: int = Field(default=0, ge=0, description="weights")
    cache: int = Field(default=0, ge=0, description="keys and values")
    compute: int = Field(default=0, ge=0)
    output: int = Field(default=0, ge=0, description="logits")

    @property
    def total(self) -> int:
        """Return the sum."""
        return self.model + self.cache + self.compute + self.output

    def __add__(self, other: "EngineBuffers") -> "EngineBuffers":
        """Return both together, of no worker in particular."""
        return EngineBuffers(
            model=self.model + other.model, cache=self.cache + other.cache, compute=self.compute + other.compute,
            output=self.output + other.output,
        )  # fmt: skip


class StartEngineResult(Record):
    """What was loaded."""

    pid: int
    engine: str = "llama.cpp"
    build: str
    architecture: str
    n_layers: int
    n_vocab: int
    context_tokens: int
    load_seconds: float
    nodes: tuple[NodeName, ...] = ()
    buffers: tuple[EngineBuffers, ...] = Field(default=(), description="empty: the engine does not say")


class StopEngineParams(Record):
    """Stop the engine; with `worker` also the RPC worker."""

    worker: bool = False


class WorkerClient(Record):
    """Somebody who is connected to a worker's port, served or waiting: a worker serves one at a time."""

    address: str = Field(description="host:port at the other end")
    program: str = Field(default="", description="name and pid, where it runs on the worker's own machine")
    served: bool = Field(description="False: the connection waits until the present client has gone")

    def __str__(self) -> str:
        """Name it for a person."""
        return f"{self.address} ({self.program})" if self.program else self.address


class NodeConnections(Record):
    """The answer of `GET /v1/connections`: who is connected to this node's worker, and the ends of its engine's."""

    worker: str | None = Field(default=None, description="host:port of the worker; null: none runs")
    clients: tuple[WorkerClient, ...] = ()
    engine: tuple[str, ...] = Field(default=(), description="host:port of this end of the engine's connections")


class Empty(Record):
    """A job with nothing to say."""


class EngineInfo(EngineDescription):
    """An engine on this node: one entry of `GET /v1/engines`."""

    available: bool = Field(description="False when its program or library is not installed here")
    build: str
