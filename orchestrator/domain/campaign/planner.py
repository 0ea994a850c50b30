"""Before a campaign: how long it takes, what it costs in joules, disk and network, and what it can resolve.

The rates are measured (from an earlier campaign, see `orchestrator.results.rates`) or given by the user.
"""

from collections.abc import Mapping
from math import ceil

from pydantic import Field

from orchestrator.domain.campaign.design_power import Expectation, Resolution, power, questions_needed, resolution
from orchestrator.domain.campaign.protocol import AccuracyField, WindowRules
from orchestrator.domain.campaign.sequential import StoppingRule
from shared.kernel.records import Record

TRACE_BYTES_PER_SAMPLE = 55
"""One line of `power_trace_NNN.csv`: 30 characters of time, the node's name, a number of up to 18 digits."""
BENCHMARK_BYTES_PER_QUESTION = 620
"""One question in `benchmark_NNN.json` with four log-likelihoods, indented (measured on the demo's files)."""


class Rates(Record):
    """What one run of one configuration costs, in seconds, watts and bytes."""

    seconds_per_question: dict[AccuracyField, float] = Field(description="prefix already in the cache")
    prefix_seconds: float = Field(default=0.0, ge=0, description="few-shot prefixes, once per run")
    fixed_seconds: float = Field(ge=0, description="idle, marker, prefill, decode, settling and loading, per run")
    surgery_seconds: float = Field(default=0.0, ge=0, description="plan, apply, validate, deploy: once a configuration")
    idle_watts: float = Field(ge=0, description="cluster")
    active_watts: float = Field(ge=0, description="cluster")
    base_bytes: int = Field(ge=0, description="quantised base model")
    f16_bytes: int = Field(default=0, ge=0, description="model the statistics are taken on, on the surgeon")
    nodes: int = Field(default=4, ge=1)
    sample_rate_hz: float = Field(default=10.0, gt=0)


class PlanRequest(Record):
    """What is to be planned."""

    configurations: int = Field(ge=1, description="control included")
    repetitions: int = Field(ge=1)
    questions: dict[AccuracyField, int]
    weights: dict[AccuracyField, float]
    rates: Rates
    expected: Expectation = Expectation()
    rules: WindowRules = WindowRules()


class CampaignPlan(Record):
    """What the campaign will cost and what it can show; `warnings` say what to change."""

    runs: int
    run_seconds: float
    duration_seconds: float
    energy_joules: float
    disk_bytes_orchestrator: int
    disk_bytes_node: int
    disk_bytes_surgeon: int
    network_bytes: int
    questions: dict[AccuracyField, int]
    repetitions: int
    resolution: Resolution | None = Field(description="null with one repetition: no interval at all")
    stopping: StoppingRule | None = None
    warnings: tuple[str, ...] = ()


class Proposal(Record):
    """The cheapest design found that resolves the target, with its plan; `power` is the chance to name the effect."""

    target_effect: float
    power: float
    plan: CampaignPlan


def plan(request: PlanRequest) -> CampaignPlan:
    """Add up duration, joules, disk and network, and predict the resolution."""
    rates, runs = request.rates, request.configurations * request.repetitions
    score = sum(rates.seconds_per_question.get(name, 0.0) * n for name, n in request.questions.items())
    run_seconds = rates.fixed_seconds + rates.prefix_seconds + score
    surgery = rates.surgery_seconds * request.configurations
    duration = runs * run_seconds + surgery
    active = runs * run_seconds * rates.active_watts + surgery * rates.idle_watts
    per_run = run_seconds * rates.sample_rate_hz * rates.nodes * TRACE_BYTES_PER_SAMPLE
    per_run += sum(request.questions.values()) * BENCHMARK_BYTES_PER_QUESTION
    weights = normalised(request.weights)
    known = request.repetitions >= 2
    predicted = resolution(request.questions, weights, request.repetitions, request.expected) if known else None
    r = request.repetitions
    return CampaignPlan(
        runs=runs,
        run_seconds=run_seconds,
        duration_seconds=duration,
        energy_joules=active,
        disk_bytes_orchestrator=ceil(runs * per_run),
        # The node keeps the base and makes one variant at a time; the surgeon keeps the F16 model, the base and one.
        disk_bytes_node=2 * rates.base_bytes,
        disk_bytes_surgeon=rates.f16_bytes + 2 * rates.base_bytes,
        # The base goes to the root node once; variants are made there from their plan.
        network_bytes=rates.base_bytes + ceil(runs * per_run),
        questions=request.questions,
        repetitions=r,
        resolution=predicted,
        stopping=StoppingRule(information=tuple(k / r for k in range(2, r + 1))) if r >= 3 else None,
        warnings=tuple(_warnings(request, score, known)),
    )


def propose(
    request: PlanRequest, target_effect: float, available: Mapping[AccuracyField, int], *, wanted_power: float = 0.8
) -> Proposal | None:
    """Return the shortest campaign (2..10 repetitions, subset sizes) that resolves `target_effect`, or None.

    Subsets are stratified by subject and seeded when they are drawn; `available` are the sizes of the whole tasks.
    """
    weights = normalised(request.weights)
    best: Proposal | None = None
    for repetitions in range(2, 11):
        sizes = questions_needed(target_effect, weights, repetitions, request.expected, wanted_power=wanted_power)
        if sizes is None or any(n > available[name] for name, n in sizes.items()):
            continue
        made = plan(request.model_copy(update={"questions": sizes, "repetitions": repetitions}))
        if made.resolution is not None and (best is None or made.duration_seconds < best.plan.duration_seconds):
            chance = power(target_effect, made.resolution, request.expected.comparisons)
            best = Proposal(target_effect=target_effect, power=chance, plan=made)
    return best


def normalised(weights: Mapping[AccuracyField, float]) -> dict[AccuracyField, float]:
    """Return the weights scaled to sum 1."""
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _warnings(request: PlanRequest, score_seconds: float, known: bool) -> list[str]:
    out: list[str] = []
    if not known:
        out.append("one repetition shows no spread: no interval and no verdict; plan at least 2, better 3")
    if score_seconds < request.rules.min_duration_s:
        out.append(
            f"the score window lasts {score_seconds:.3g} s, shorter than the {request.rules.min_duration_s:g} s that"
            " validity asks for"
        )
    if request.rates.base_bytes == 0:
        out.append("the model's size is unknown: disk and network are without it")
    return out
