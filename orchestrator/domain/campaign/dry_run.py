"""Before a campaign starts: what its spec will run, in which order, how long, on which disk, and what it can show.

The rates come from an earlier campaign (`orchestrator.results.rates`) or from the user; without any, the order, the
waiting and the power of the design are still known.
"""

from pydantic import Field

from orchestrator.domain.campaign.design_power import Expectation, Resolution, resolution
from orchestrator.domain.campaign.fit import ConfigurationFit
from orchestrator.domain.campaign.planner import CampaignPlan, PlanRequest, plan
from orchestrator.domain.campaign.protocol import AccuracyField, AccuracyPlace
from orchestrator.domain.campaign.rates import Rates
from orchestrator.domain.campaign.schedule import configurations_of, schedule
from orchestrator.domain.campaign.spec import CampaignSpec, WindowsSpec
from shared.kernel.records import Record

SUITE_SIZES: dict[AccuracyField, int] = {
    "mmlu_5shot": 14_042, "arc_challenge_25shot": 1_172, "hellaswag_10shot": 10_042,
}  # fmt: skip
_UNKNOWN_SIZE = 1_000
"""Of a task whose number of questions is known only when its files are read."""
_WINDOWS = 5
"""idle, marker, prefill, decode, score: each has its gap before it."""


class SpecCheck(Record):
    """A sound spec in short."""

    id: str
    spec_hash: str
    configurations: tuple[str, ...]
    repetitions: int
    runs: int
    memory: tuple[ConfigurationFit, ...] = Field(
        default=(), description="bytes on each node against what it has; empty: not held against a lab"
    )


class SpecPlan(SpecCheck):
    """What a spec will run and what it can show; null where nothing is known to calculate it from."""

    order: tuple[str, ...] = Field(description="run ids in the order they are measured")
    waiting_seconds: float = Field(description="steady state, gaps, idle and marker of all runs: the least")
    questions: dict[AccuracyField, int]
    where: AccuracyPlace = Field(description="where the questions are answered")
    rates_from: str | None = Field(description="where the rates come from; null: none are known")
    rates_sources: tuple[str, ...] = Field(default=(), description="of published rates, where each comes from")
    duration_seconds: float | None = Field(description="null without rates")
    literal_duration_seconds: float | None = Field(
        description="with every question asked of the cluster in every repetition; null without rates"
    )
    plan: CampaignPlan | None = Field(description="duration, energy, disk, network; null without rates")
    expected: Expectation
    resolution: Resolution | None = Field(description="power of the design; null with one repetition")


class Pace(Record):
    """How quickly a cluster did a campaign's windows: what carries over to windows of other lengths."""

    prefill_tokens_per_s: float = Field(ge=1e-6, le=1e12)
    decode_tokens_per_s: float = Field(ge=1e-6, le=1e12)
    between_s: float = Field(ge=0, le=1e12, description="loading and talk of one run, outside windows and gap")
    steady_s: float | None = Field(
        default=None, ge=0, le=1e12, description="the wait for the steady state; null: as long as the spec allows it"
    )

    def fixed_seconds(self, windows: WindowsSpec) -> float:
        """Return the seconds of one run that do not depend on the number of questions."""
        prefill = windows.prefill.prompts * windows.prefill.repeats * windows.prefill.tokens_each
        decode = windows.decode.prompts * windows.decode.repeats * windows.decode.tokens_each
        return (
            waiting_seconds(windows) - _least_steady_s(windows) + self.between_s
            + (_most_steady_s(windows) if self.steady_s is None else self.steady_s)
            + prefill / self.prefill_tokens_per_s + decode / self.decode_tokens_per_s
        )  # fmt: skip


def waiting_seconds(windows: WindowsSpec) -> float:
    """Return the least that one run waits by its spec: for the steady state, before each window, idle and marker."""
    marker = windows.marker
    return (
        _least_steady_s(windows)
        + _WINDOWS * windows.gap_before_window_s
        + windows.idle_s
        + marker.cycles * (marker.on_s + marker.off_s)
        + marker.off_s
    )


def _least_steady_s(windows: WindowsSpec) -> float:
    gate = windows.steady_state.gate
    return windows.steady_state.fixed_s if gate is None else gate.min_s


def _most_steady_s(windows: WindowsSpec) -> float:
    gate = windows.steady_state.gate
    return windows.steady_state.fixed_s if gate is None else gate.max_s


def check(spec: CampaignSpec, memory: tuple[ConfigurationFit, ...] = ()) -> SpecCheck:
    """Say in short what a spec runs; `memory` is how its configurations fit, where a lab was asked.

    Raises:
        ConfigurationError: a configuration that does not exist, or that its engine cannot run.
    """
    configurations = configurations_of(spec)
    return SpecCheck(
        id=spec.id, spec_hash=spec.spec_hash(), configurations=tuple(one.id for one in configurations),
        repetitions=spec.repetitions, runs=len(configurations) * spec.repetitions, memory=memory,
    )  # fmt: skip


def spec_plan(
    spec: CampaignSpec,
    *,
    rates: Rates | None = None,
    pace: Pace | None = None,
    expected: Expectation | None = None,
    rates_from: str | None = None,
    rates_sources: tuple[str, ...] = (),
    memory: tuple[ConfigurationFit, ...] = (),
) -> SpecPlan:
    """Plan a spec.

    Args:
        spec: what is to be run.
        rates: what a run costs; None: unknown.
        pace: adjusts the rates' fixed seconds to the spec's own windows; None: they are taken as they are.
        expected: spread, accuracy, discordance; None: the usual ones of a lab.
        rates_from: where rates and expectation come from.
        rates_sources: of published rates, the source of each figure.
        memory: how the configurations fit, where a lab was asked.

    Raises:
        ConfigurationError: a configuration that does not exist, or that its engine cannot run.
    """
    head = check(spec, memory)
    compared = sum(one.is_pruned for one in configurations_of(spec))
    awaited = (expected or Expectation()).model_copy(update={"comparisons": max(compared, 1)})
    # A task may stand in for the suite its role is named after: its own size is known when its files are read.
    intelligence = spec.intelligence
    questions = {
        task.name: intelligence.asked(task) or SUITE_SIZES.get(task.name, _UNKNOWN_SIZE) for task in intelligence.tasks
    }
    weights = intelligence.weights
    planned = None
    if rates is not None:
        if pace is not None:
            rates = rates.model_copy(update={"fixed_seconds": pace.fixed_seconds(spec.windows)})
        planned = plan(
            PlanRequest(
                configurations=len(head.configurations), repetitions=spec.repetitions, questions=questions,
                weights=weights, rates=rates, expected=awaited, rules=spec.rules, where=spec.scored,
                cluster_sample=intelligence.cluster_sample,
            )
        )  # fmt: skip
    known = spec.repetitions >= 2 and compared > 0
    return SpecPlan(
        **dict(head),
        order=tuple(planned_run.run.format() for planned_run in schedule(spec)),
        waiting_seconds=head.runs * waiting_seconds(spec.windows),
        questions=questions,
        where=spec.scored,
        rates_from=rates_from,
        rates_sources=rates_sources,
        duration_seconds=None if planned is None else planned.duration_seconds,
        literal_duration_seconds=None if planned is None else planned.literal_duration_seconds,
        plan=planned,
        expected=awaited,
        resolution=resolution(questions, weights, spec.repetitions, awaited) if known else None,
    )
