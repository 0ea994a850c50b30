"""What is done once a campaign (base model, statistics, workers) and once a configuration (plan, surgery, check)."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from orchestrator.campaign.calls import Call, Caller
from orchestrator.campaign.lab import Lab
from orchestrator.domain.spec import CampaignSpec
from shared.errors import ConfigurationError, EpiError
from shared.node_jobs.artifacts import HoldParams, HoldResult, ObtainParams, ObtainResult
from shared.records import Configuration, NodeName, Sha256
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

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Base:
    """The campaign's base model, its expert statistics, and how it reached the nodes that need it."""

    model: PrepareResult
    statistics: ObserveResult
    deliveries: dict[NodeName, ObtainResult]

    @property
    def wish(self) -> ObtainParams:
        """Return what a node is asked for to get the base model."""
        return ObtainParams(sha256=self.model.base_sha256, size_bytes=self.model.base_size_bytes)


@dataclass(frozen=True)
class Variant:
    """A configuration's plan and file, and the base model that both start from."""

    base: Base
    plan: PlanResult
    file: ApplyResult
    check: ValidateResult

    @property
    def wish(self) -> ObtainParams:
        """Return what a node is asked for to get the variant: the file with the surgeon's hash, by any way."""
        return ObtainParams(
            sha256=self.file.sha256, size_bytes=self.file.size_bytes,
            base_sha256=self.base.model.base_sha256, plan=self.plan.plan,
        )  # fmt: skip


async def prepare_base(
    caller: Caller, lab: Lab, spec: CampaignSpec, ended: Callable[[str], Awaitable[bool]]
) -> Base:
    """Convert, quantise and observe the model, and bring the base to the node that loads models.

    `ended` tells whether a campaign has ended for good, so that what it held may go.

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
    await hold(caller, lab, spec, (model.base_sha256,), ended)
    base = Base(model, statistics, {})
    obtain_s = spec.timeouts.obtain("obtain_base", model.base_size_bytes)
    delivery = await caller.idempotent(
        "", "obtain_base", Call(lab.root_name, lab.root, "obtain", base.wish, obtain_s), ObtainResult
    )
    # Only the root reads model files; its engine gives the other nodes their layers.
    return Base(model, statistics, {lab.root_name: delivery})


async def hold(
    caller: Caller, lab: Lab, spec: CampaignSpec, sha256s: tuple[Sha256, ...], ended: Callable[[str], Awaitable[bool]]
) -> None:
    """Keep what the campaign needs on the root from being removed, and free what campaigns that have ended held there.

    Raises:
        EpiError: the node's error.
    """
    params, timeout_s = HoldParams(holder=spec.id, sha256s=sha256s), spec.timeouts.handling("hold_base")
    held = await caller.afresh("hold_base", Call(lab.root_name, lab.root, "hold", params, timeout_s), HoldResult)
    for holder in held.holders:
        if holder != spec.id and await ended(holder):
            free = HoldParams(holder=holder)
            await caller.afresh("release", Call(lab.root_name, lab.root, "hold", free, timeout_s), HoldResult)


async def release(caller: Caller, lab: Lab, spec: CampaignSpec) -> None:
    """Say that a campaign needs nothing any more; a root that is away hears it when the next campaign begins."""
    call = Call(lab.root_name, lab.root, "hold", HoldParams(holder=spec.id), spec.timeouts.handling("release"))
    try:
        await caller.afresh("release", call, HoldResult, tries=1)
    except EpiError as error:
        log.warning("%s keeps what %s held: %s", lab.root_name, spec.id, error)


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
    return Variant(base, plan, file, check)
