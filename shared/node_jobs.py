"""What a node agent can be asked to do: parameters and results of each job kind.

| kind | does |
|---|---|
| `fetch` | bring an artifact from the node's configured source by ranged HTTP |
| `deploy` | apply a plan to the base model the node already has; the hash must equal the surgeon's |
| `start_worker` | start (or find) the node's RPC worker |
| `start_engine` | start the engine on this (root) node over the given workers |
| `stop_engine` | stop the engine and, if asked, the worker |
| `marker` | step a CPU load on and off, to find the meter's lag |
| `prefill`, `decode` | fixed workloads with exact token ledgers |
| `score` | log-likelihoods of continuations, shared prefixes evaluated once |

All times are UTC nanoseconds of the node's clock.
"""

from typing import Literal

from pydantic import Field

from shared.records import NodeName, Record, Sha256, SurgeryPlan, TokenLedger

EngineName = Literal["llama.cpp", "distributed-llama"]


class FetchParams(Record):
    """Bring one artifact here."""

    sha256: Sha256


class FetchResult(Record):
    """`bytes_received` is 0 when the artifact was here already."""

    sha256: Sha256
    size_bytes: int
    bytes_received: int


class DeployParams(Record):
    """Apply `plan` to `base_sha256` locally."""

    base_sha256: Sha256
    plan: SurgeryPlan
    expected_sha256: Sha256


class DeployResult(Record):
    """`sha256` equals the expected hash, or the job fails."""

    sha256: Sha256
    size_bytes: int
    bytes_received: int = 0
    seconds: float


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
    workers: tuple[str, ...] = ()
    context_tokens: int = Field(default=2048, ge=64, description="KV cache size in tokens over all sequences")
    sequences: int = Field(default=32, ge=2, le=256, description="parallel sequences for scoring")
    threads: int = Field(default=1, ge=1)
    experts_per_token: int | None = Field(default=None, ge=1, description="K override by model parameter")
    engine: EngineName = "llama.cpp"
    tokenizer_sha256: Sha256 | None = Field(default=None, description="distributed-llama's .t file")
    cache_f32: bool = Field(default=False, description="KV cache in F32: for comparing with F32 references")


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


class StopEngineParams(Record):
    """Stop the engine; with `worker` also the RPC worker."""

    worker: bool = False


class Empty(Record):
    """A job with nothing to say."""


class MarkerParams(Record):
    """Step a full CPU load on one core: `cycles` times `on_s` on, `off_s` off, beginning and ending with off."""

    on_s: float = Field(default=0.5, gt=0, le=60)
    off_s: float = Field(default=0.5, gt=0, le=60)
    cycles: int = Field(default=2, ge=1, le=20)


class MarkerResult(Record):
    """Times between which the load was on, and the whole job's span."""

    start_utc_ns: int
    end_utc_ns: int
    on: tuple[tuple[int, int], ...]


class PrefillParams(Record):
    """Evaluate each prompt, cut or repeated to exactly `tokens_each`, `repeats` times, each with an empty cache."""

    prompts: tuple[str, ...] = Field(min_length=1)
    tokens_each: int = Field(ge=1)
    repeats: int = Field(default=1, ge=1)


class DecodeParams(Record):
    """Greedy generation of exactly `tokens_each` tokens after each prompt; end-of-text does not stop it."""

    prompts: tuple[str, ...] = Field(min_length=1)
    tokens_each: int = Field(ge=1)
    repeats: int = Field(default=1, ge=1)


class RequestRecord(Record):
    """One request inside a workload."""

    start_utc_ns: int
    end_utc_ns: int
    ledger: TokenLedger


class WorkloadResult(Record):
    """A workload's span, exact token counts, and each request. `decode` evaluates its prompts before `start_utc_ns`."""

    start_utc_ns: int
    end_utc_ns: int
    ledger: TokenLedger
    requests: tuple[RequestRecord, ...] = ()
    output_sha256: Sha256 | None = Field(default=None, description="hash of all generated token ids")


class ScoreItem(Record):
    """One question: context is the group's prefix + `suffix`; each continuation is scored after it."""

    suffix: str
    continuations: tuple[str, ...] = Field(min_length=1)


class ScoreGroup(Record):
    """Questions that share a few-shot prefix."""

    prefix: str = ""
    items: tuple[ScoreItem, ...]


class ScoreParams(Record):
    """Questions to score, grouped by prefix."""

    groups: tuple[ScoreGroup, ...]


class ItemScore(Record):
    """Sums of log-probabilities in nats, and whether each continuation is the greedy one, in the order asked."""

    log_likelihoods: tuple[float, ...]
    greedy: tuple[bool, ...]
    ledger: TokenLedger
    start_utc_ns: int
    end_utc_ns: int


class ScoreResult(Record):
    """Scores as [group][item]."""

    start_utc_ns: int
    end_utc_ns: int
    ledger: TokenLedger
    groups: tuple[tuple[ItemScore, ...], ...]


class NodeFacts(Record):
    """The answer of `GET /v1/facts`; what cannot be read is null, never invented."""

    name: NodeName
    board: str | None = None
    cpu_model: str | None = None
    n_cpus: int
    memory_bytes: int
    kernel: str
    python: str
    governor: str | None = None
    cpu_mhz: float | None = None
    temperature_c: float | None = None
    throttled_bits: int | None = Field(default=None, description="vcgencmd get_throttled")
    load_1min: float
    clock_offset_s: float | None = Field(default=None, description="this host minus true time, by chrony")
    engine_build: str | None = None
    disk_free_bytes: int
    utc_ns: int
