"""What is done once a campaign (base model, statistics, workers) and once a configuration (plan, surgery, check)."""

import asyncio
from dataclasses import dataclass

from orchestrator.campaign.calls import Call, Caller
from orchestrator.campaign.lab import Lab
from orchestrator.domain.spec import CampaignSpec
from orchestrator.domain.steps import SetupStep
from shared.errors import ConfigurationError
from shared.node_jobs.artifacts import FetchParams, FetchResult, HoldParams, HoldResult
from shared.records import Configuration, Sha256
from shared.surgeon_jobs import (
    ApplyParams,
    ApplyResult,
    ObserveParams,
    ObserveResult,
    PlanParams,
    PlanResult,
    PrepareParams,
    PrepareResult,
    ValidateParams,
    ValidateResult,
)


@dataclass(frozen=True)
class Base:
    """The campaign's base model and its expert statistics."""

    model: PrepareResult
    statistics: ObserveResult


@dataclass(frozen=True)
class Variant:
    """A configuration's plan and file, and the base model that both start from."""

    base_sha256: str
    plan: PlanResult
    file: ApplyResult
    check: ValidateResult


async def prepare_base(caller: Caller, lab: Lab, spec: CampaignSpec) -> Base:
    """Convert, quantise and observe the model, and bring the base to every node.

    Raises:
        EpiError: an agent's error.
    """
    model = await caller.idempotent(
        "", "prepare",
        Call("surgeon", lab.surgeon, "prepare", PrepareParams(model=spec.model, quantization=spec.quantization),
             spec.timeouts.unsized("prepare")),
        PrepareResult,
    )  # fmt: skip
    statistics = await caller.idempotent(
        "", "observe",
        Call("surgeon", lab.surgeon, "observe", ObserveParams(model_sha256=model.f16_sha256, corpus=spec.corpus),
             spec.timeouts.unsized("observe")),
        ObserveResult,
    )  # fmt: skip
    fetch = FetchParams(sha256=model.base_sha256)
    fetch_s = spec.timeouts.transfer("fetch_base", model.base_size_bytes)
    await asyncio.gather(
        *(
            caller.idempotent("", "fetch_base", Call(name, client, "fetch", fetch, fetch_s), FetchResult)
            for name, client in lab.nodes.items()
        )
    )
    await hold_on_nodes(caller, lab, spec, "hold_base", (model.base_sha256,))
    return Base(model, statistics)


async def hold_on_nodes(
    caller: Caller, lab: Lab, spec: CampaignSpec, step: SetupStep, sha256s: tuple[Sha256, ...]
) -> None:
    """Tell every node which artifacts this campaign needs from now on: its garbage collection spares them.

    Raises:
        EpiError: an agent's error.
    """
    params = HoldParams(holder=spec.id, sha256s=sha256s)
    await asyncio.gather(
        *(
            caller.idempotent("", step, Call(name, client, "hold", params, spec.timeouts.unsized(step)), HoldResult)
            for name, client in lab.nodes.items()
        )
    )


async def prepare_variant(
    caller: Caller, lab: Lab, spec: CampaignSpec, base: Base, configuration: Configuration
) -> Variant:
    """Plan, apply and check one configuration.

    Raises:
        ConfigurationError: the variant failed its sanity check, with the reason.
        EpiError: an agent's error.
    """
    plan = await caller.idempotent(
        configuration.id, "plan",
        Call("surgeon", lab.surgeon, "plan", PlanParams(
            model_sha256=base.model.f16_sha256, statistics_sha256=base.statistics.statistics_sha256,
            method=configuration.method if configuration.depth else spec.method,
            depth=configuration.depth, group=configuration.group, layout=configuration.layout,
            experts_per_token=configuration.experts_per_token,
        ), spec.timeouts.unsized("plan")),
        PlanResult,
    )  # fmt: skip
    file = await caller.idempotent(
        configuration.id, "apply",
        Call("surgeon", lab.surgeon, "apply", ApplyParams(base_sha256=base.model.base_sha256, plan=plan.plan),
             spec.timeouts.rewrite("apply", base.model.base_size_bytes)),
        ApplyResult,
    )  # fmt: skip
    check = await caller.idempotent(
        configuration.id, "validate",
        Call("surgeon", lab.surgeon, "validate", ValidateParams(
            sha256=file.sha256, baseline_sha256=base.model.base_sha256,
            max_perplexity_ratio=spec.max_perplexity_ratio,
        ), spec.timeouts.unsized("validate")),
        ValidateResult,
    )  # fmt: skip
    if not check.ok:
        raise ConfigurationError(
            f"the variant is not fit to be measured: {check.reason}", where=configuration.id,
            hint="drop fewer experts, use another method, or raise max_perplexity_ratio in the spec",
        )  # fmt: skip
    return Variant(base.model.base_sha256, plan, file, check)
