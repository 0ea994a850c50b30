"""How runs are measured and judged, frozen with the campaign: accuracy fields, window rules, token basis."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from shared.kernel.numbers import Weight
from shared.kernel.records import Record, equals

LagS = Annotated[float, Field(ge=-60, le=60)]
"""Seconds by which a meter is late."""
Celsius = Annotated[float, Field(ge=-100, le=200)]
AccuracyField = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]{0,63}$")]
"""One figure of accuracy; any number of them make the composite."""
PUBLISHED_FIELDS: tuple[AccuracyField, ...] = ("mmlu_5shot", "arc_challenge_25shot", "hellaswag_10shot")
AccuracyPlace = Literal["cluster", "once", "scorers"]
"""Where the questions are answered. cluster: in the score window of each repetition, the literal protocol. once: on the
cluster, before the windows, one time for all that ask the same of the same model. scorers: on machines that no meter
watches. In the last two the cluster itself is asked a sample, in the score window of the first repetition."""
TokenBasis = Literal["decode_generated", "prefill_prompt", "benchmark_generated"]
TaskName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.()-]{0,127}$")]
"""A benchmark task, group or tag to be looked up in an index: never a path. Holds every name of lm-eval 0.4.13."""


class AccuracyTask(Record):
    """Which benchmark tasks fill one accuracy field, and how much it weighs in the composite."""

    tasks: tuple[str, ...] = Field(min_length=1, description="task names; a trailing * matches any ending")
    weight: Weight = 1 / 3

    def holds(self, task: str) -> bool:
        """Tell whether `task` belongs to this field."""
        return any(task.startswith(name[:-1]) if name.endswith("*") else task == name for name in self.tasks)


def default_accuracy() -> dict[AccuracyField, AccuracyTask]:
    """Return lm-eval's own tasks with equal weights."""
    return {
        "mmlu_5shot": AccuracyTask(tasks=("mmlu", "mmlu_*")),
        "arc_challenge_25shot": AccuracyTask(tasks=("arc_challenge",)),
        "hellaswag_10shot": AccuracyTask(tasks=("hellaswag",)),
    }


class WindowRules(Record):
    """When a window is believed (MLPerf Power / SPEC PTDaemon, docs/epi.md); the demo shortens the durations."""

    former_names: ClassVar = {
        "settle_s": "min_gap_before_window_s",
        "max_register_disagreement": "max_energy_register_disagreement",
    }

    min_duration_s: float = Field(default=60.0, ge=0, le=31_536_000, description="shorter decode, prefill, score: FAIL")
    recommended_duration_s: float = Field(default=600.0, ge=0, le=31_536_000, description="shorter: FLAG")
    min_idle_s: float = Field(default=10.0, ge=0, le=31_536_000, description="shorter idle: FAIL")
    max_sample_interval_s: float = Field(default=1.0, ge=0.001, le=3600, description="longer median interval: FAIL")
    gap_limit_s: float = Field(
        default=2.0, ge=0.001, le=3600, description="longer gap, or edge without samples around it: FAIL"
    )
    min_samples: int = Field(default=10, ge=2, le=1_000_000_000, description="in a window; fewer: FAIL")
    max_instrument_uncertainty: float = Field(default=0.01, ge=1e-6, le=10, description="relative, 1 sigma; more: FLAG")
    ambient_c: tuple[Celsius, Celsius] = Field(
        default=(20.0, 24.0), description="lowest and highest ambient temperature; outside: FLAG"
    )
    max_temperature_drift_c: float = Field(
        default=5.0, ge=0.01, le=1000, description="of a node over the run; more: FLAG"
    )
    required_governor: str = Field(default="performance", description="CPU frequency governor; another: FLAG")
    min_gap_before_window_s: float | None = Field(
        default=None,
        ge=0,
        le=86_400,
        description="less time since the window before: FLAG; null asks 10 s, 0 s where shortened",
    )
    max_energy_register_disagreement: float = Field(
        default=0.02, ge=1e-6, le=10, description="register against integral; more: FLAG"
    )
    max_agent_cpu_share: float = Field(
        default=0.002, ge=1e-6, le=1000, description="of one core, by a node's agent; more: FLAG"
    )
    max_request_ratio: float = Field(
        default=3.0, ge=1.01, le=1e6, exclude_if=equals(3.0),
        description="a request's time to the median of its siblings, which do the same; more: FAIL",
    )  # fmt: skip
    stall_s: float = Field(
        default=1.0,
        ge=0,
        le=86_400,
        exclude_if=equals(1.0),
        description="a request stalls from this much over the median",
    )
    max_other_choices: float = Field(
        default=0.02, ge=0, le=1, exclude_if=equals(0.02),
        description="share of the cluster's sample that it answers otherwise than the answer set; more: FLAG",
    )  # fmt: skip
    max_foreign_cpu_share: float = Field(
        default=0.05, ge=0, le=1e12, exclude_if=equals(0.05),
        description="of one core, by programs other than engine and agent on a node in a window; more: FLAG",
    )  # fmt: skip
    fail_foreign_cpu_share: float = Field(
        default=0.5, ge=0, le=1e12, exclude_if=equals(0.5), description="more: FAIL, but FLAG where shortened"
    )
    max_steal_share: float = Field(
        default=0.01,
        ge=0,
        le=1e12,
        exclude_if=equals(0.01),
        description="of a node's time taken by its host; more: FLAG",
    )
    fail_steal_share: float = Field(
        default=0.05, ge=0, le=1e12, exclude_if=equals(0.05), description="more: FAIL, but FLAG where shortened"
    )
    max_clock_drift_s: float = Field(
        default=0.1, ge=1e-6, le=1e12, exclude_if=equals(0.1),
        description="of the root's clock against the orchestrator's in an attempt; more: FAIL (another node's: FLAG)",
    )  # fmt: skip
    max_repetition_ratio: float = Field(
        default=1.25, ge=1.001, le=1e12, exclude_if=equals(1.25),
        description="J/token of a repetition to the others of its configuration, either way; more: FAIL",
    )  # fmt: skip
    max_calibration_age_days: float = Field(default=365.0, ge=1e-6, le=1e12, description="older or unknown: FLAG")
    shortened: bool = Field(default=False, description="durations are below the norm on purpose: the report says so")


DEMO_RULES = WindowRules(
    min_duration_s=0.5,
    recommended_duration_s=1.0,
    min_idle_s=0.5,
    gap_limit_s=0.5,
    min_samples=5,
    max_foreign_cpu_share=0.5,
    max_repetition_ratio=3.0,
    shortened=True,
)
"""Rules of the demo: seconds instead of minutes, at 10 Hz."""


class MeasurementProtocol(Record):
    """How the run was measured and is judged; frozen with the campaign."""

    former_names: ClassVar = {"settle_s": "gap_before_window_s"}

    token_basis: TokenBasis = "decode_generated"
    accuracy: dict[AccuracyField, AccuracyTask] = Field(default_factory=default_accuracy, min_length=1)
    accuracy_note: str = Field(default="", description="for example: tasks of the same style, not the real suites")
    rules: WindowRules = WindowRules()
    lag_range_s: tuple[LagS, LagS] = Field(default=(-0.25, 1.5), description="where the lag is looked for")
    gap_before_window_s: float = Field(default=0.0, ge=0, le=86_400, description="gap before each window")
    accuracy_where: AccuracyPlace = Field(
        default="cluster", exclude_if=equals("cluster"), description="where the questions are answered"
    )

    @model_validator(mode="after")
    def _weights_add_up(self) -> Self:
        if self.accuracy and sum(task.weight for task in self.accuracy.values()) <= 0:
            raise ValueError("the accuracy weights are all zero")
        if self.lag_range_s[0] >= self.lag_range_s[1]:
            raise ValueError("the lag range is empty")
        return self
