"""The wait before a run's first window: what a campaign asks for, and what came of it.

Not here: how a node looks at itself (the `settle` job), and the waiting (`orchestrator.campaign.steady_state`).
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from shared.kernel.records import NodeName, Record
from shared.wire.node_jobs.host import SteadyGateParams, SteadyGateResult

Mode = Literal["fixed", "steady", "both"]


class SteadyStateSpec(Record):
    """How long to wait once the engine is loaded.

    `fixed`: `fixed_s`, the same for every run. `steady`: until temperature, load and power of all nodes are steady, at
    most `steady.max_s`. `both`: at least `fixed_s` and until steady, at most `steady.max_s`.
    """

    mode: Mode = Field(default="both", description="a fixed time, until steady, or both")
    fixed_s: float = Field(default=60.0, ge=0, le=7200, description="the fixed time")
    steady: SteadyGateParams = Field(default=SteadyGateParams(), description="the gate of each node")

    @model_validator(mode="after")
    def _ceiling_is_above_the_floor(self) -> Self:
        if self.gate is not None and self.gate.min_s > self.gate.max_s:
            raise ValueError(f"the ceiling steady.max_s = {self.gate.max_s:g} lies below {self.gate.min_s:g} s")
        return self

    @property
    def gate(self) -> SteadyGateParams | None:
        """Return what the nodes are asked for; None where nobody asks them."""
        if self.mode == "fixed":
            return None
        if self.mode == "steady":
            return self.steady
        return self.steady.model_copy(update={"min_s": max(self.fixed_s, self.steady.min_s)})


class SteadyStateWait(Record):
    """The wait before a run's first window, in UTC ns of the orchestrator's clock.

    `steady` is null after a fixed wait alone: nobody looked. Otherwise False after the ceiling, with the reasons.
    """

    mode: Mode
    start_utc_ns: int
    end_utc_ns: int
    steady: bool | None = None
    reasons: tuple[str, ...] = ()
    nodes: dict[NodeName, SteadyGateResult] = Field(default_factory=dict, description="what each node saw of itself")
    power_change: dict[NodeName, float | None] = Field(
        default_factory=dict, description="drift of the metered power over the span, relative; null without samples"
    )

    @property
    def duration_s(self) -> float:
        """Return the length of the wait in seconds."""
        return (self.end_utc_ns - self.start_utc_ns) / 1e9
