"""Frozen records that cross a process boundary or reach a file; each is validated where it enters.

Not here: what only one part uses (its own modules), and the job protocol (`shared.wire.protocol`).
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Layout = Literal["uniform", "biased"]
LayerGroup = Literal["all", "early", "middle", "late"]
EngineName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,31}$")]
"""Which engines there are, `shared.wire.engines` knows: a result may be read where its engine is not installed."""
WindowLabel = Literal["idle", "marker", "prefill", "decode", "score"]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
CampaignId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
ConfigurationId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
NodeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
InstrumentKind = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class Record(BaseModel):
    """Base of all records: immutable, unknown fields refused, NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    former_names: ClassVar[Mapping[str, str]] = {}
    """Key of an earlier version -> field that it became: read under both names, written under the new one."""

    @model_validator(mode="before")
    @classmethod
    def _read_former_names(cls, data: Any) -> Any:
        if not cls.former_names or not isinstance(data, dict) or cls.former_names.keys().isdisjoint(data):
            return data
        for former, name in cls.former_names.items():
            if former in data and name in data:
                raise ValueError(f"{name} is given twice: {former} is its former name")
        return {cls.former_names.get(key, key): value for key, value in data.items()}


def canonical_json(record: BaseModel) -> bytes:
    """Return the record as JSON with sorted keys and no spaces: equal records have equal bytes."""
    return canonical_bytes(record.model_dump(mode="json"))


def canonical_bytes(values: Any) -> bytes:
    """Return JSON values with sorted keys and no spaces."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def dump_under_former_names(record: BaseModel) -> dict[str, Any]:
    """Return the record as JSON values with the keys that an earlier version wrote: what its hashes were made of."""
    renamed: dict[str, Any] = _renamed_back(record, record.model_dump(mode="json"))
    return renamed


def _renamed_back(value: Any, dumped: Any) -> Any:
    if isinstance(value, Record):
        former = {name: old for old, name in value.former_names.items()}
        return {former.get(name, name): _renamed_back(getattr(value, name), dumped[name]) for name in dumped}
    if isinstance(value, dict):
        return {key: _renamed_back(inner, dumped[str(key)]) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_renamed_back(inner, again) for inner, again in zip(value, dumped, strict=True)]
    return dumped


def is_empty(value: object) -> bool:
    """Tell that a collection holds nothing: `exclude_if` leaves it out."""
    return not value


def equals(default: object) -> Callable[[object], bool]:
    """Return an `exclude_if` for a field that came later: at its default it is left out, so that hashes stay."""
    return lambda value: value == default


def is_absent(value: object) -> bool:
    """Tell that a field was not given: `exclude_if` leaves it out, so that what was written before keeps its hash."""
    return value is None


class MergeMatrices(Record):
    """How new experts are mixed from old ones: [layer][new][old] weights of the experts and of their router rows."""

    experts: tuple[tuple[tuple[float, ...], ...], ...] = Field(description="[layer][new][old] weights of the experts")
    routers: tuple[tuple[tuple[float, ...], ...], ...] = Field(
        description="[layer][new][old] weights of the router rows"
    )


class SurgeryPlan(Record):
    """Which experts each layer keeps, and where the decision came from.

    `uniform` removes the other experts from the file, so every layer must keep the same number. `biased` leaves them in
    the file and makes them unselectable, so layers may keep different numbers. With `merge`, a kept expert is replaced
    by a weighted sum of all old ones, in its place.
    """

    schema_version: Literal[1] = Field(default=1, description="of plans")
    n_experts: int = Field(ge=1, le=4096, description="experts in each layer of the base model")
    kept: tuple[tuple[int, ...], ...] = Field(description="[layer][rank] ascending ids of the kept experts")
    layout: Layout = Field(default="uniform", description="uniform: removed; biased: forbidden")
    experts_per_token: int | None = Field(
        default=None, ge=1, le=4096, description="K override; null keeps the model's own K"
    )
    method: str = Field(default="none", description="how the decision was made")
    parameters: dict[str, str | int | float | bool] = Field(default_factory=dict, description="of the method")
    base_sha256: Sha256 | None = Field(default=None, description="hash of the model the statistics were taken on")
    statistics_sha256: Sha256 | None = Field(default=None, description="what the method looked at")
    # Later fields are left out where they are not used, so that plans written before them keep their hash.
    router_sha256: Sha256 | None = Field(
        default=None, exclude_if=is_absent,
        description="hash of the base's routers in F32, whatever format and quantisation: what expert ids mean",
    )  # fmt: skip
    merge: MergeMatrices | None = Field(
        default=None, exclude_if=is_absent, description="how kept experts are mixed from old ones"
    )

    @model_validator(mode="after")
    def _kept_is_sound(self) -> Self:
        if not self.kept:
            raise ValueError("a plan needs at least one layer")
        for layer, ids in enumerate(self.kept):
            if not ids:
                raise ValueError(f"layer {layer} keeps no expert")
            if list(ids) != sorted(set(ids)):
                raise ValueError(f"layer {layer}: kept expert ids must be ascending without repeats")
            if ids[0] < 0 or ids[-1] >= self.n_experts:
                raise ValueError(f"layer {layer}: an expert id lies outside 0..{self.n_experts - 1}")
            if self.experts_per_token is not None and len(ids) < self.experts_per_token:
                raise ValueError(
                    f"layer {layer} keeps {len(ids)} experts, fewer than the {self.experts_per_token} active per token"
                )
        if self.layout == "uniform" and len({len(ids) for ids in self.kept}) > 1:
            raise ValueError("layout 'uniform' needs the same number of kept experts in every layer; use 'biased'")
        return self

    @model_validator(mode="after")
    def _merge_fits(self) -> Self:
        if self.merge is None:
            return self
        if self.layout != "uniform":
            raise ValueError("merging changes the experts' weights: it needs the layout 'uniform'")
        shape = [[self.n_experts] * len(ids) for ids in self.kept]
        for name, matrices in (("experts", self.merge.experts), ("routers", self.merge.routers)):
            if [[len(row) for row in matrix] for matrix in matrices] != shape:
                raise ValueError(f"merge.{name} is not [layer][kept expert][old expert]")
        return self

    @property
    def n_layers(self) -> int:
        """Number of MoE layers of the base model."""
        return len(self.kept)

    @property
    def dropped(self) -> tuple[tuple[int, ...], ...]:
        """Return [layer][rank] ascending ids of the dropped experts."""
        return tuple(tuple(sorted(set(range(self.n_experts)) - set(ids))) for ids in self.kept)

    def plan_hash(self) -> str:
        """Return the SHA-256 of the canonical JSON of the plan."""
        return hashlib.sha256(canonical_json(self)).hexdigest()


class Configuration(Record):
    """One cell of the campaign's matrix: what is done to the model and how it is served."""

    id: ConfigurationId = Field(description="the variant, and the serving where it is not the campaign's usual one")
    depth: int = Field(ge=0, description="experts dropped in each layer of the group")
    group: LayerGroup = "all"
    layout: Layout = "uniform"
    method: str = "frequency"
    quantization: str = "Q4_K_M"
    experts_per_token: int | None = Field(default=None, ge=1)
    n_nodes: int | None = Field(default=None, ge=1, description="null uses every node of the cluster")
    nodes: tuple[NodeName, ...] = Field(default=(), description="exactly these, the first is the root; empty: n_nodes")
    engine: EngineName = Field(default="llama.cpp", description="serves idle, marker, prefill and decode")
    serving: str = Field(
        default="", pattern=r"^([a-z0-9][a-z0-9_.-]{0,47})?$",
        description="what differs from the campaign's usual serving, for example n2.k4",
    )  # fmt: skip
    reference: ConfigurationId | None = Field(
        default=None, description="what it is compared with; null: the unpruned model of its own layout and serving"
    )
    fewest: bool = Field(
        default=False, exclude_if=equals(False), description="n_nodes is the fewest nodes that hold it; null: not known"
    )
    variant: ConfigurationId | None = Field(
        default=None, exclude_if=is_absent, description="the spec's named variant; null: the id says what is done"
    )

    @property
    def is_pruned(self) -> bool:
        """True where something is done to the model: what a campaign compares with its reference."""
        return self.depth > 0 or self.variant is not None

    @property
    def is_usual_cell(self) -> bool:
        """True for a cell of the matrix with the campaign's own method and serving: what its curves are made of."""
        return self.variant is None and "." not in self.id


class TokenLedger(Record):
    """The four token counts that are never mixed (docs/epi.md)."""

    generated: int = Field(default=0, ge=0, description="tokens the model produced")
    prompt: int = Field(default=0, ge=0, description="prompt tokens evaluated")
    cached: int = Field(default=0, ge=0, description="prompt tokens served from the KV cache")
    scored: int = Field(default=0, ge=0, description="continuation tokens whose log-likelihood was read")

    def __add__(self, other: "TokenLedger") -> "TokenLedger":
        """Return the sum, count by count."""
        return TokenLedger(
            generated=self.generated + other.generated,
            prompt=self.prompt + other.prompt,
            cached=self.cached + other.cached,
            scored=self.scored + other.scored,
        )


class Window(Record):
    """A labelled half-open interval [start, end) of a repetition, in UTC nanoseconds of the orchestrator's clock."""

    label: WindowLabel
    start_utc_ns: int
    end_utc_ns: int
    ledger: TokenLedger = TokenLedger()
    node: NodeName | None = Field(default=None, description="only for markers: the node whose load was stepped")
    request_s: tuple[float, ...] = Field(
        default=(), exclude_if=is_empty, description="seconds of each request of a prefill or decode window, in order"
    )

    @model_validator(mode="after")
    def _is_forward(self) -> Self:
        if self.end_utc_ns <= self.start_utc_ns:
            raise ValueError(f"window {self.label!r} ends before it starts")
        return self

    @property
    def duration_s(self) -> float:
        """Length of the window in seconds."""
        return (self.end_utc_ns - self.start_utc_ns) / 1e9


class QuestionResult(Record):
    """One answered benchmark question.

    Log-likelihoods are in nats, one per option. A question that was answered in free text has the text instead, target
    0, and choice 0 where the text counts as right, else 1.
    """

    task: str
    question_id: str
    subject: str = ""
    target: int
    choice: int = Field(description="option chosen by `metric`")
    correct: bool
    metric: Literal["acc", "acc_norm", "exact_match"]
    log_likelihoods: tuple[float, ...]
    text: str | None = Field(default=None, description="what was generated, as the metric judged it")
    ledger: TokenLedger = TokenLedger()
    start_utc_ns: int | None = None
    end_utc_ns: int | None = None


class Instrument(Record):
    """What measured the power, so that no watt is without its basis."""

    name: str
    kind: InstrumentKind = Field(description="ac_meter, emulated, replay, unknown, or another source's own word")
    emulated: bool
    firmware: str | None = None
    calibration_id: str | None = None
    calibrated_utc_ns: int | None = Field(default=None, description="date of the calibration applied; null: unknown")
    measurement_point: str = "unknown"
    sample_rate_hz: float | None = Field(default=None, gt=0)
    relative_uncertainty: float | None = Field(
        default=None, ge=0, le=10, description="standard uncertainty of power, 1 sigma, relative"
    )
