"""What a node agent can be asked to do: parameters and results of each job kind.

| kind | does |
|---|---|
| `fetch` | bring an artifact from the node's configured source by ranged HTTP |
| `obtain` | bring an artifact here in the cheapest way: by plan, ranged HTTP or rsync |
| `hold`, `collect` | what a campaign needs here, and removing what nobody needs |
| `deploy` | apply a plan to the base model the node already has; the hash must equal the surgeon's |
| `start_worker` | start (or find) the node's RPC worker |
| `start_engine` | start the engine on this (root) node over the given workers |
| `stop_engine` | stop the engine and, if asked, the worker |
| `marker` | step a CPU load on and off, to find the meter's lag |
| `prefill`, `decode` | fixed workloads with exact token ledgers |
| `score` | log-likelihoods of continuations, shared prefixes evaluated once |
| `generate` | greedy texts for benchmarks that judge what a model writes |
| `set_governor` | set the CPU frequency governor, where the node's settings allow it |
| `settle` | wait until temperature and load are steady |

All times are UTC nanoseconds of the node's clock.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

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


Way = Literal["here", "plan", "http", "rsync"]
"""How an artifact reaches a node: it is there, made by plan from the base, ranged HTTP, rsync over ssh."""


class ObtainParams(Record):
    """Bring an artifact here in the cheapest way that is possible (or allowed by `ways`)."""

    sha256: Sha256
    size_bytes: int = Field(ge=0)
    base_sha256: Sha256 | None = Field(default=None, description="what `plan` applies to; rsync's basis as well")
    plan: SurgeryPlan | None = None
    ways: tuple[Way, ...] = ("here", "plan", "http", "rsync")


class WayCost(Record):
    """What one way is expected to cost; null where it is not possible, with the reason."""

    way: Way
    expected_bytes: int | None = None
    reason: str = ""


class ObtainResult(Record):
    """`bytes_received` and `bytes_sent` crossed the net to and from this node; the plan counts with its own size."""

    sha256: Sha256
    size_bytes: int
    way: Way
    bytes_received: int
    bytes_sent: int = 0
    seconds: float
    considered: tuple[WayCost, ...]


Holder = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class HoldParams(Record):
    """What `holder` (a campaign) needs on this node from now on; nothing releases what it held."""

    holder: Holder
    sha256s: tuple[Sha256, ...] = ()


class HoldResult(Record):
    """What of it is not here yet."""

    missing: tuple[Sha256, ...] = ()


class CollectParams(Record):
    """Remove artifacts that nobody holds, least recently used first, until at most `keep_bytes` are used."""

    keep_bytes: int = Field(default=0, ge=0)


class CollectResult(Record):
    """What was removed, and what is still used."""

    removed: tuple[Sha256, ...]
    freed_bytes: int
    used_bytes: int


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
    agent: "AgentActivity | None" = Field(default=None, description="what the root's agent did meanwhile")


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
    agent: "AgentActivity | None" = Field(default=None, description="what the root's agent did meanwhile")


StopReason = Literal["until", "end", "length"]


class GenerateItem(Record):
    """One prompt; the answer ends before the first of `until`, at end-of-text, or after `max_tokens`."""

    prompt: str = Field(min_length=1)
    until: tuple[str, ...] = ()
    max_tokens: int = Field(ge=1, le=32768)


class GenerateParams(Record):
    """Prompts to continue greedily; what a prompt shares with the one before it is evaluated once."""

    items: tuple[GenerateItem, ...] = Field(min_length=1)


class GeneratedText(Record):
    """One answer, without the stop string; `ledger.generated` counts the ending token too."""

    text: str
    stopped: StopReason
    ledger: TokenLedger
    start_utc_ns: int
    end_utc_ns: int


class GenerateResult(Record):
    """Answers in the order asked."""

    start_utc_ns: int
    end_utc_ns: int
    ledger: TokenLedger
    texts: tuple[GeneratedText, ...]
    agent: "AgentActivity | None" = None


class EngineInfo(Record):
    """What an engine of this node can do: one entry of `GET /v1/engines`."""

    name: EngineName
    available: bool = Field(description="False when its program or library is not installed here")
    build: str
    score: bool
    generate: bool
    tokenise: bool
    distributed: bool
    overrides_experts_per_token: bool
    layouts: tuple[str, ...]
    requests_per_workload: int | None = None


class SetGovernorParams(Record):
    """Set the governor of every CPU."""

    governor: Literal["performance", "ondemand", "schedutil", "conservative", "powersave"] = "performance"


class SetGovernorResult(Record):
    """Governor before and after; `changed` False when it was right already."""

    before: str
    after: str
    changed: bool


class SettleParams(Record):
    """Wait until temperature and load are steady over the last `span_s` seconds, at least `min_s`, at most `max_s`."""

    min_s: float = Field(default=60.0, ge=0, le=3600)
    max_s: float = Field(default=300.0, gt=0, le=7200)
    span_s: float = Field(default=60.0, gt=0, le=3600)
    every_s: float = Field(default=5.0, ge=0.1, le=60)
    max_slope_c_per_min: float = Field(default=0.5, gt=0)
    max_busy: float = Field(default=0.05, gt=0, description="busy share of all CPUs, 0..1")
    max_power_change: float = Field(default=0.05, gt=0, description="drift of the PMIC power in the span")


class SettleSample(Record):
    """One look at the machine while waiting."""

    utc_ns: int
    temperature_c: float | None = None
    busy: float = Field(ge=0, le=1)
    pmic_power_w: float | None = None


class SettleResult(Record):
    """`settled` False after `max_s`, with the reasons; the caller decides what it means."""

    settled: bool
    reasons: tuple[str, ...] = ()
    start_utc_ns: int
    end_utc_ns: int
    slope_c_per_min: float | None = None
    busy: float
    samples: tuple[SettleSample, ...]


class AgentEvent(Record):
    """Something the agent did: served a request, or ran a program."""

    utc_ns: int
    what: str


class AgentActivity(Record):
    """What an agent did in an interval: the proof of its silence.

    `GET /v1/activity` counts from the agent's start; the difference of two answers (`activity_between`) is an interval.
    """

    start_utc_ns: int
    end_utc_ns: int
    agent_cpu_s: float
    agent_written_bytes: int
    engine_written_bytes: int | None = Field(default=None, description="null without an engine process")
    worker_written_bytes: int | None = Field(default=None, description="null without a worker process")
    events: tuple[AgentEvent, ...] = ()

    @property
    def agent_cpu_share(self) -> float:
        """CPU time of the agent as a share of one core."""
        return self.agent_cpu_s / max((self.end_utc_ns - self.start_utc_ns) / 1e9, 1e-9)


def activity_between(before: AgentActivity, after: AgentActivity) -> AgentActivity:
    """Return what happened between two answers of one agent; null where a process was not there both times."""

    def difference(old: int | None, new: int | None) -> int | None:
        return None if old is None or new is None or new < old else new - old

    return AgentActivity(
        start_utc_ns=before.end_utc_ns,
        end_utc_ns=after.end_utc_ns,
        agent_cpu_s=after.agent_cpu_s - before.agent_cpu_s,
        agent_written_bytes=after.agent_written_bytes - before.agent_written_bytes,
        engine_written_bytes=difference(before.engine_written_bytes, after.engine_written_bytes),
        worker_written_bytes=difference(before.worker_written_bytes, after.worker_written_bytes),
        events=tuple(event for event in after.events if event.utc_ns > before.end_utc_ns),
    )


class DiskSpace(Record):
    """One mounted file system on a real device."""

    mount: str
    device: str
    total_bytes: int
    free_bytes: int


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
    cpu_max_mhz: float | None = None
    governors: tuple[str, ...] = Field(default=(), description="governors this machine offers")
    throttled_now: tuple[str, ...] | None = None
    throttled_since_boot: tuple[str, ...] | None = None
    supply_max_ma: int | None = Field(default=None, description="what the supply negotiated (Pi 5)")
    pmic_power_w: float | None = Field(default=None, description="sum of the PMIC's rails: a cross-check, not a meter")
    supply_v: float | None = Field(default=None, description="input voltage by the PMIC")
    disks: tuple[DiskSpace, ...] = ()
    utc_ns: int


WorkloadResult.model_rebuild()
ScoreResult.model_rebuild()
GenerateResult.model_rebuild()
