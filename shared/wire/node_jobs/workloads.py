"""The work of an engine and the marker load, with exact token ledgers.

Not here: starting the engine (engines). All times are UTC nanoseconds of the node's clock.
"""

from typing import Literal

from pydantic import Field

from shared.kernel.records import Record, Sha256, TokenLedger
from shared.wire.node_jobs.activity import AgentActivity


class MarkerParams(Record):
    """Step a full CPU load on one core: `cycles` times `on_s` on, `off_s` off, beginning and ending with off."""

    on_s: float = Field(default=0.5, ge=0.01, le=60, description="load on")
    off_s: float = Field(default=0.5, ge=0.01, le=60, description="load off")
    cycles: int = Field(default=2, ge=1, le=20, description="how often")


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
    agent: AgentActivity | None = Field(default=None, description="what the root's agent did meanwhile")


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
    agent: AgentActivity | None = Field(default=None, description="what the root's agent did meanwhile")


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
    agent: AgentActivity | None = None
