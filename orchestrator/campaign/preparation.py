"""What is done once a campaign (base models, statistics) and once a configuration (plan, surgery, check)."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.campaign.calls import Call, Caller
from orchestrator.campaign.lab import Lab
from orchestrator.campaign.topology import SCORING_ENGINE, ModelFacts, check_fit, nodes_of, roots_of
from orchestrator.domain.campaign.schedule import configurations_of
from orchestrator.domain.campaign.spec import CampaignSpec
from shared.kernel.errors import BugError, ConfigurationError, EpiError
from shared.kernel.records import Configuration, NodeName, Sha256
from shared.wire.node_jobs.artifacts import HoldParams, HoldResult, ObtainParams, ObtainResult
from shared.wire.surgeon_jobs import (
    ApplyParams,
    ApplyResult,
    ConvertParams,
    FileResult,
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
class Twin:
    """distributed-llama's files of the same weights."""

    model: ObtainParams
    tokenizer: ObtainParams


@dataclass(frozen=True)
class Base:
    """The base model in one quantisation, its statistics, its twin for distributed-llama, and how it reached the roots.

    A model that cannot be cut has no statistics; the twin is made only where a configuration runs on that engine.
    """

    model: PrepareResult
    statistics: ObserveResult | None
    twin: Twin | None
    deliveries: dict[NodeName, ObtainResult] = field(default_factory=dict)

    @property
    def wish(self) -> ObtainParams:
        """Return what a root is asked for to get the base model."""
        return ObtainParams(sha256=self.model.base_sha256, size_bytes=self.model.base_size_bytes)

    @property
    def wishes(self) -> tuple[ObtainParams, ...]:
        """Return what a root is asked for to get everything."""
        if self.twin is None:
            return (self.wish,)
        return (self.wish, self.twin.model, self.twin.tokenizer)


@dataclass(frozen=True)
class ModelFile:
    """A file that an engine loads, and the base it is made from; without a plan it is the base itself."""

    base: ObtainParams
    wish: ObtainParams
    tokenizer_sha256: Sha256 | None = None


@dataclass(frozen=True)
class Variant:
    """What a configuration's plan made: the file that is scored, and the one whose energy is measured."""

    base: Base
    plan: PlanResult | None
    scored: ModelFile
    measured: ModelFile


async def prepare_bases(
    caller: Caller, lab: Lab, spec: CampaignSpec, ended: Callable[[str], Awaitable[bool]]
) -> dict[str, Base]:
    """Return the base model in each quantisation of the matrix; every root has them, and every configuration can run.

    `ended` tells whether a campaign has ended for good, so that what it held may go.

    Raises:
        ConfigurationError: a configuration can never run, said before anything is measured.
        EpiError: an agent's error.
    """
    configurations = configurations_of(spec)
    bases = {}
    for quantization in dict.fromkeys([spec.quantization, *(one.quantization for one in configurations)]):
        twins = any(one.engine != SCORING_ENGINE and one.quantization == quantization for one in configurations)
        bases[quantization] = await _prepare_base(caller, lab, spec, quantization, twins=twins)
    for one in configurations:
        base, nodes = bases[one.quantization], nodes_of(one, list(lab.nodes))
        check_fit(one, ModelFacts(spec.model, base.model.no_surgery, base.model.n_kv_heads), len(nodes))
    wishes = {wish.sha256: wish for base in bases.values() for wish in base.wishes}
    for root in roots_of(configurations, list(lab.nodes)):  # only they read model files: engines hand out the layers
        await hold(caller, lab, spec, root, tuple(wishes), ended)
        for wish in wishes.values():
            obtain_s = spec.timeouts.obtain("obtain_base", wish.size_bytes)
            call = Call(root, lab.nodes[root], "obtain", wish, obtain_s)
            place = "" if wish == bases[spec.quantization].wish else wish.sha256[:12]
            delivery = await caller.idempotent(place, "obtain_base", call, ObtainResult)
            if not place:
                bases[spec.quantization].deliveries[root] = delivery
    return bases


async def _prepare_base(caller: Caller, lab: Lab, spec: CampaignSpec, quantization: str, *, twins: bool) -> Base:
    """Convert, quantise and observe the model; what only another quantisation needs is journaled under its name."""
    place = "" if quantization == spec.quantization else quantization.lower()
    prepare_s = spec.timeouts.unsized("prepare")
    model = await caller.idempotent(
        place, "prepare",
        Call("surgeon", lab.surgeon, "prepare", PrepareParams(model=spec.model, quantization=quantization), prepare_s),
        PrepareResult,
    )  # fmt: skip
    twin = None
    if twins:
        files = []
        for form in ("dllama", "dllama_tokenizer"):
            wanted = ConvertParams.model_validate({"model": spec.model, "format": form})
            call = Call("surgeon", lab.surgeon, "convert", wanted, prepare_s)
            made = await caller.idempotent(form, "prepare", call, FileResult)
            files.append(ObtainParams(sha256=made.sha256, size_bytes=made.size_bytes))
        twin = Twin(*files)
    statistics = None
    if not model.no_surgery:
        statistics = await caller.idempotent(
            place, "observe",
            Call("surgeon", lab.surgeon, "observe", ObserveParams(model_sha256=model.f16_sha256, corpus=spec.corpus),
                 spec.timeouts.unsized("observe")),
            ObserveResult,
        )  # fmt: skip
    return Base(model, statistics, twin)


async def hold(
    caller: Caller, lab: Lab, spec: CampaignSpec, root: str, sha256s: tuple[Sha256, ...],
    ended: Callable[[str], Awaitable[bool]],
) -> None:  # fmt: skip
    """Keep what the campaign needs on a root from being removed, and free what campaigns that have ended held there.

    Raises:
        EpiError: the node's error.
    """
    params, timeout_s = HoldParams(holder=spec.id, sha256s=sha256s), spec.timeouts.handling("hold_base")
    held = await caller.afresh("hold_base", Call(root, lab.nodes[root], "hold", params, timeout_s), HoldResult)
    for holder in held.holders:
        if holder != spec.id and await ended(holder):
            free = HoldParams(holder=holder)
            await caller.afresh("release", Call(root, lab.nodes[root], "hold", free, timeout_s), HoldResult)


async def release(caller: Caller, lab: Lab, spec: CampaignSpec) -> None:
    """Say that a campaign needs nothing any more; a root that is away hears it when the next campaign begins."""
    timeout_s = spec.timeouts.handling("release")
    for root in roots_of(configurations_of(spec), list(lab.nodes)):
        call = Call(root, lab.nodes[root], "hold", HoldParams(holder=spec.id), timeout_s)
        try:
            await caller.afresh("release", call, HoldResult, tries=1)
        except EpiError as error:
            log.warning("%s keeps what %s held: %s", root, spec.id, error)


async def prepare_variant(
    caller: Caller, lab: Lab, spec: CampaignSpec, bases: Mapping[str, Base], configuration: Configuration
) -> Variant:
    """Plan, apply and check one configuration.

    Raises:
        ConfigurationError: the variant failed its sanity check, with the reason.
        EpiError: an agent's error.
    """
    base = bases[configuration.quantization]
    plan = None
    if base.statistics is not None:
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
    scored = await _apply(caller, lab, spec, configuration.id, base.wish, plan)
    check = await caller.idempotent(
        configuration.id, "validate",
        Call("surgeon", lab.surgeon, "validate", ValidateParams(
            sha256=scored.wish.sha256, baseline_sha256=base.model.base_sha256,
            max_perplexity_ratio=spec.max_perplexity_ratio,
        ), spec.timeouts.unsized("validate")),
        ValidateResult,
    )  # fmt: skip
    if not check.ok:
        raise ConfigurationError(
            f"the variant is not fit to be measured: {check.reason}", where=configuration.id,
            hint="drop fewer experts, use another method, or raise max_perplexity_ratio in the spec",
        )  # fmt: skip
    measured = scored
    if configuration.engine != SCORING_ENGINE:
        if base.twin is None:
            raise BugError("no files for distributed-llama were made", where=configuration.id)
        twin = await _apply(caller, lab, spec, f"{configuration.id}.m", base.twin.model, plan)
        measured = replace(twin, tokenizer_sha256=base.twin.tokenizer.sha256)
    return Variant(base, plan, scored, measured)


async def _apply(
    caller: Caller, lab: Lab, spec: CampaignSpec, name: str, base: ObtainParams, plan: PlanResult | None
) -> ModelFile:
    """Let the surgeon cut a base by the plan; without one the base stays as it is."""
    if plan is None:
        return ModelFile(base, base)
    file = await caller.idempotent(
        name, "apply",
        Call("surgeon", lab.surgeon, "apply", ApplyParams(base_sha256=base.sha256, plan=plan.plan),
             spec.timeouts.rewrite("apply", base.size_bytes)),
        ApplyResult,
    )  # fmt: skip
    return ModelFile(base, ObtainParams(
        sha256=file.sha256, size_bytes=file.size_bytes, base_sha256=base.sha256, plan=plan.plan,
    ))  # fmt: skip
