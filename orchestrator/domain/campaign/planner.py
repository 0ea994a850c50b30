"""Before a campaign: how long it takes, what it costs in joules, disk and network, and what it can resolve.

The rates are measured (from an earlier campaign, see `orchestrator.results.rates`) or given by the user.
"""

from collections.abc import Iterator, Mapping
from math import ceil

from pydantic import Field

from orchestrator.domain.campaign.design_power import Expectation, Resolution, power, questions_needed, resolution
from orchestrator.domain.campaign.protocol import AccuracyField, AccuracyPlace, WindowRules
from orchestrator.domain.campaign.rates import Rates, RatesLabel
from orchestrator.domain.campaign.sequential import StoppingRule
from shared.kernel.records import Record

TRACE_BYTES_PER_SAMPLE = 55
"""One line of `power_trace_NNN.csv`: 30 characters of time, the node's name, a number of up to 18 digits."""
BENCHMARK_BYTES_PER_QUESTION = 620
"""One question in `benchmark_NNN.json` with four log-likelihoods, indented (measured on the demo's files)."""


class PlanRequest(Record):
    """What is to be planned."""

    configurations: int = Field(ge=1, description="control included")
    repetitions: int = Field(ge=1)
    questions: dict[AccuracyField, int]
    weights: dict[AccuracyField, float]
    rates: Rates
    expected: Expectation = Expectation()
    rules: WindowRules = WindowRules()
    where: AccuracyPlace = Field(default="cluster", description="where the questions are answered")
    cluster_sample: int = Field(default=100, ge=0, description="asked of the cluster where others answer, per task")


class FurtherDay(Record):
    """What the campaign would show with more days, spent on repetitions."""

    days: int
    repetitions: int
    smallest_effect: float = Field(description="relative fall of EPI that is named with 80 % power")


class CampaignPlan(Record):
    """What the campaign will cost and what it can show; `warnings` say what to change."""

    runs: int
    run_seconds: float
    duration_seconds: float
    literal_duration_seconds: float = Field(description="with every question asked of the cluster in every repetition")
    windows_seconds: float = Field(description="of it, what measures energy: all runs without their questions")
    cluster_questions_seconds: float = Field(description="of it, questions that the cluster answers")
    scorer_seconds: float | None = Field(description="what scorers need beside it; null: none")
    critical_path: str = Field(description="what the duration is made of")
    energy_joules: float = Field(description="of the cluster; what scorers and surgeon use is not in it")
    disk_bytes_orchestrator: int
    disk_bytes_node: int
    disk_bytes_surgeon: int
    network_bytes: int
    questions: dict[AccuracyField, int]
    repetitions: int
    resolution: Resolution | None = Field(description="null with one repetition: no interval at all")
    stopping: StoppingRule | None = None
    further: tuple[FurtherDay, ...] = Field(default=(), description="what more days would resolve")
    rates_label: RatesLabel = "given"
    warnings: tuple[str, ...] = ()


class Proposal(Record):
    """The cheapest design found that resolves the target, with its plan; `power` is the chance to name the effect."""

    target_effect: float
    power: float
    plan: CampaignPlan


def plan(request: PlanRequest) -> CampaignPlan:
    """Add up duration, joules, disk and network, and predict the resolution."""
    rates, runs = request.rates, request.configurations * request.repetitions
    every = _answering_seconds(rates, request.questions)
    sample = {name: min(n, request.cluster_sample) for name, n in request.questions.items()}
    few = _answering_seconds(rates, sample, request.questions)
    asked = {
        "cluster": runs * every,
        "once": request.configurations * (every + few),
        "scorers": request.configurations * few,
    }[request.where]
    surgery = rates.surgery_seconds * request.configurations
    windows = runs * rates.fixed_seconds
    cluster = windows + asked
    scorers = _scorer_seconds(request)
    duration = max(cluster, scorers or 0.0) + surgery
    run_seconds = cluster / runs
    active = cluster * rates.active_watts + (duration - cluster) * rates.idle_watts
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
        literal_duration_seconds=runs * (rates.fixed_seconds + every) + surgery,
        windows_seconds=windows,
        cluster_questions_seconds=asked,
        scorer_seconds=scorers,
        critical_path="the scorers" if scorers is not None and scorers > cluster else "the cluster",
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
        further=tuple(_further_days(request, weights)) if known else (),
        rates_label=rates.label,
        warnings=tuple(_warnings(request, every if request.where == "cluster" else few, known)),
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


def _answering_seconds(
    rates: Rates, asked: Mapping[AccuracyField, int], chosen: Mapping[AccuracyField, int] | None = None
) -> float:
    """Return the seconds the cluster needs for one pass; a sample of the `chosen` questions pays for few prefixes."""
    seconds = sum(rates.seconds_per_question.get(name, 0.0) * n for name, n in asked.items())
    if not any(asked.values()):
        return 0.0
    if not rates.prefixes:
        return rates.prefix_seconds + seconds
    for name, n in asked.items():
        if n and (prefixes := rates.prefixes.get(name)) is not None:
            whole = (chosen or asked)[name]
            seconds += ceil(prefixes.count * n / whole) * prefixes.seconds_each
    return seconds


def _scorer_seconds(request: PlanRequest) -> float | None:
    scorer = request.rates.scorer
    if request.where != "scorers" or scorer is None:
        return None
    each = scorer.loading_seconds + scorer.prefix_seconds
    each += sum(scorer.seconds_per_question.get(name, 0.0) * n for name, n in request.questions.items())
    return ceil(request.configurations / scorer.count) * each


def _further_days(request: PlanRequest, weights: Mapping[AccuracyField, float]) -> Iterator[FurtherDay]:
    """Yield what one, two and four more days of repetitions would resolve, where they allow another one."""
    each = request.rates.fixed_seconds
    if request.where == "cluster":
        each += _answering_seconds(request.rates, request.questions)
    for days in (1, 2, 4):
        more = int(days * 86_400 / (each * request.configurations)) if each > 0 else 0
        if more:
            r = request.repetitions + more
            effect = resolution(request.questions, weights, r, request.expected).smallest_effect
            yield FurtherDay(days=days, repetitions=r, smallest_effect=effect)


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
    if request.where == "scorers" and request.rates.scorer is None:
        out.append("the rates know no scorer: the duration is the cluster's alone")
    if request.rates.base_bytes == 0:
        out.append("the model's size is unknown: disk and network are without it")
    return out
