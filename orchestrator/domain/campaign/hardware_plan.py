"""Planning a spec for a kind of hardware whose rates are published: nothing of it was measured here, and it is said."""

from orchestrator.domain.campaign.dry_run import Pace, SpecPlan, spec_plan
from orchestrator.domain.campaign.planner import CampaignPlan
from orchestrator.domain.campaign.rates import EngineRate, HardwareRates, Prefixes, Rates, ScorerRates
from orchestrator.domain.campaign.spec import CampaignSpec
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import EngineName


def hardware_plan(spec: CampaignSpec, hardware: HardwareRates) -> SpecPlan:
    """Plan a spec with the rates of a kind of hardware.

    Raises:
        ConfigurationError: the hardware's rates know nothing of a task of the spec.
    """
    engine, rate = _engine(hardware, spec.engine.name)
    planned = spec_plan(
        spec, rates=rates_of(spec, hardware), pace=pace_of(rate, hardware),
        rates_from=f"{hardware.label}: {hardware.description} ({engine})", rates_sources=hardware.sources,
    )  # fmt: skip
    if engine == spec.engine.name or planned.plan is None:
        return planned
    warning = f"no rates of {spec.engine.name} are known here: those of {engine} are taken"
    return planned.model_copy(update={"plan": _warned(planned.plan, warning)})


def pace_of(rate: EngineRate, hardware: HardwareRates) -> Pace:
    """Return how quickly windows are done."""
    return Pace(
        prefill_tokens_per_s=rate.prefill_tokens_per_s, decode_tokens_per_s=rate.decode_tokens_per_s,
        between_s=hardware.loading_seconds,
    )  # fmt: skip


def rates_of(spec: CampaignSpec, hardware: HardwareRates) -> Rates:
    """Return what one run of the spec costs on the hardware; `fixed_seconds` are those of its windows.

    Raises:
        ConfigurationError: the rates know nothing of a task of the spec.
    """
    names = list(spec.intelligence.weights)
    if unknown := [name for name in names if name not in hardware.tasks]:
        raise ConfigurationError(
            f"the rates say nothing of {', '.join(unknown)}", where=hardware.description,
            hint=f"they know {', '.join(hardware.tasks)}; write the task's tokens into a rates file of your own",
        )  # fmt: skip
    _, rate = _engine(hardware, spec.engine.name)
    sizes = {name: hardware.tasks[name] for name in names}
    scorer = hardware.scorer
    return Rates(
        seconds_per_question={
            name: size.tokens_per_question / rate.prefill_tokens_per_s for name, size in sizes.items()
        },
        prefixes={
            name: Prefixes(count=size.prefixes, seconds_each=size.tokens_per_prefix / rate.prefill_tokens_per_s)
            for name, size in sizes.items()
        },
        fixed_seconds=pace_of(rate, hardware).fixed_seconds(spec.windows),
        idle_watts=hardware.idle_watts,
        active_watts=hardware.active_watts,
        base_bytes=hardware.base_bytes,
        f16_bytes=hardware.f16_bytes,
        nodes=hardware.nodes,
        sample_rate_hz=hardware.sample_rate_hz,
        scorer=None if scorer is None else ScorerRates(
            seconds_per_question={
                name: size.tokens_per_question / scorer.prefill_tokens_per_s for name, size in sizes.items()
            },
            prefix_seconds=sum(
                size.prefixes * size.tokens_per_prefix / scorer.prefill_tokens_per_s for size in sizes.values()
            ),
            loading_seconds=scorer.loading_seconds,
            count=scorer.count,
        ),
        label=hardware.label,
    )  # fmt: skip


def _engine(hardware: HardwareRates, wanted: EngineName) -> tuple[EngineName, EngineRate]:
    """Return the rates of the engine that is wanted, else those of the first that the hardware has any of."""
    name = wanted if wanted in hardware.engines else next(iter(hardware.engines))
    return name, hardware.engines[name]


def _warned(plan: CampaignPlan, warning: str) -> CampaignPlan:
    return plan.model_copy(update={"warnings": (*plan.warnings, warning)})
