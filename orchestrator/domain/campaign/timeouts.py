"""How long a step may take before it counts as hanging: from what it moves and evaluates, at the slowest rates allowed.

A step that is over its time is cancelled and its attempt ends; a bound that is too wide costs hours of waiting for a
dead machine, one that is too tight breaks a slow but healthy run. So the rates are far below any sensible machine's.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator

from orchestrator.domain.campaign.steps import FORMER_STEPS, Step
from shared.kernel.records import Record
from shared.wire.node_jobs.host import SteadyGateParams
from shared.wire.node_jobs.workloads import GenerateParams, MarkerParams, ScoreParams

_HANDLING_S = 120.0
"""Starting and ending processes: what costs time whatever its size (an engine that hangs is ended after 60 s)."""
_UNSIZED_S: dict[Step, float] = {
    "prepare": 12 * 3600.0, "observe": 24 * 3600.0, "plan": 3600.0, "search": 7 * 24 * 3600.0, "validate": 6 * 3600.0,
}  # fmt: skip
"""Steps whose size is known to the surgeon only: hours for the largest model, see `steps` of the spec."""
_PASSES = 3
"""A file that is brought or made is read, written and hashed."""


class TimeoutsSpec(Record):
    """When a step counts as hanging. Rates are lower bounds of a healthy lab, not expectations."""

    transfer_bytes_per_s: float = Field(default=2e6, ge=1, le=1e15, description="network and disk, at the slowest")
    prefill_tokens_per_s: float = Field(default=2.0, ge=1e-3, le=1e9, description="evaluating prompts, at the slowest")
    decode_tokens_per_s: float = Field(default=0.2, ge=1e-3, le=1e9, description="generating, at the slowest")
    steps: dict[Step, Annotated[float, Field(ge=1e-3, le=31_536_000)]] = Field(
        default_factory=dict, description="seconds, instead of the derived ones"
    )
    recover_s: float = Field(
        default=600.0,
        ge=0,
        le=31_536_000,
        description="after a fault, how long an agent or meter that is away is waited for",
    )

    @field_validator("steps", mode="before")
    @classmethod
    def _read_former_steps(cls, value: Any) -> Any:
        return (
            {FORMER_STEPS.get(step, step): seconds for step, seconds in value.items()}
            if isinstance(value, dict)
            else value
        )

    def handling(self, step: Step) -> float:
        """Return the seconds for jobs that move nothing: engine stopped, worker started."""
        return self.steps.get(step, _HANDLING_S)

    def unsized(self, step: Step) -> float:
        """Return the seconds for a step whose size only its agent knows."""
        return self.steps.get(step, _UNSIZED_S[step])

    def transfer(self, step: Step, size_bytes: int) -> float:
        """Return the seconds for bringing a file over the network, or loading it over the workers."""
        return self.steps.get(step, _HANDLING_S + size_bytes / self.transfer_bytes_per_s)

    def fetch(self, step: Step, size_bytes: int) -> float:
        """Return the seconds for bringing a file by whatever way, one that is tried in vain included."""
        return self.steps.get(step, _HANDLING_S + 2 * _PASSES * size_bytes / self.transfer_bytes_per_s)

    def steady_state(self, gate: SteadyGateParams) -> float:
        """Return the seconds for a node's wait, which ends by itself at its ceiling."""
        return self.steps.get("steady_state", _HANDLING_S + gate.max_s)

    def rewrite(self, step: Step, size_bytes: int) -> float:
        """Return the seconds for making one file of this size from another on the same disk."""
        return self.steps.get(step, _HANDLING_S + _PASSES * size_bytes / self.transfer_bytes_per_s)

    def marker(self, marker: MarkerParams) -> float:
        """Return the seconds for the marker load."""
        return self.steps.get("marker", _HANDLING_S + marker.cycles * (marker.on_s + marker.off_s) + marker.off_s)

    def prefill(self, tokens: int) -> float:
        """Return the seconds for evaluating this many prompt tokens."""
        return self.steps.get("prefill", _HANDLING_S + tokens / self.prefill_tokens_per_s)

    def decode(self, prompts: Sequence[str], tokens_each: int, repeats: int) -> float:
        """Return the seconds for evaluating each prompt and generating `tokens_each` after it, `repeats` times."""
        once_s = sum(
            _most_tokens(prompt) / self.prefill_tokens_per_s + tokens_each / self.decode_tokens_per_s
            for prompt in prompts
        )
        return self.steps.get("decode", _HANDLING_S + repeats * once_s)

    def score(self, questions: ScoreParams) -> float:
        """Return the seconds for reading all log-likelihoods, each shared prefix evaluated once."""
        tokens = sum(
            _most_tokens(group.prefix)
            + sum(_most_tokens(item.suffix + text) for item in group.items for text in item.continuations)
            for group in questions.groups
        )
        return self.steps.get("score", _HANDLING_S + tokens / self.prefill_tokens_per_s)

    def generate(self, questions: GenerateParams) -> float:
        """Return the seconds for writing all texts to their longest."""
        once_s = sum(
            _most_tokens(item.prompt) / self.prefill_tokens_per_s + item.max_tokens / self.decode_tokens_per_s
            for item in questions.items
        )
        return self.steps.get("score", _HANDLING_S + once_s)


def _most_tokens(text: str) -> int:
    """Return a bound of a text's tokens: tokenisers need fewer than one a two bytes of any language's prose."""
    return len(text.encode(errors="replace")) // 2 + 1
