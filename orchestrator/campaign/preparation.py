"""What is done once a campaign (base models, statistics) and once a configuration (plan, surgery, check)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.campaign.calls import Call
from orchestrator.campaign.context import CampaignContext
from orchestrator.campaign.pins import SurgeonPins, pin
from orchestrator.campaign.plans import Needs, PlanMaker, needs_of_searches
from orchestrator.campaign.surgery_lists import ListMaker
from orchestrator.campaign.topology import ModelFacts, check_fit, nodes_of, roots_of
from orchestrator.domain.campaign.schedule import configurations_of
from orchestrator.domain.campaign.spec import given_file
from orchestrator.domain.run.records import SurgeriesDone
from shared.kernel.errors import BugError, ConfigurationError, InfrastructureError
from shared.kernel.records import Configuration, EngineName, NodeName
from shared.wire.engines.registry import ENGINES
from shared.wire.node_jobs.artifacts import FetchParams, FetchResult
from shared.wire.surgeon_jobs import (
    ConvertParams,
    FileResult,
    ObserveParams,
    ObserveResult,
    PlanResult,
    PrepareParams,
    PrepareResult,
    ValidateParams,
    ValidateResult,
)
from shared.wire.surgeries import ApplyParams, ApplyResult, SurgeryTable

_F16_RATIO = 7
"""The unquantised model's bytes against those of the base, at most."""
GGUF = "gguf"
"""The format in which every base is prepared; for engines of another one it is converted once more."""


@dataclass(frozen=True)
class EngineFiles:
    """The same weights in an engine's own format, and its tokenizer where that is a file of its own."""

    model: FetchParams
    tokenizer: FetchParams | None

    @property
    def requests(self) -> tuple[FetchParams, ...]:
        """Return what a root is asked for to get them."""
        return (self.model,) if self.tokenizer is None else (self.model, self.tokenizer)


@dataclass(frozen=True)
class Base:
    """The base model in one quantisation, its statistics, its files for other engines, and how it reached the roots.

    A model that cannot be cut has no statistics; files are made only where a configuration runs on such an engine.
    """

    model: PrepareResult
    statistics: ObserveResult | None
    engine_files: dict[str, EngineFiles]
    """By the engine's model format; GGUF is the base itself."""
    deliveries: Mapping[NodeName, FetchResult] = field(default_factory=dict)

    search_needs: Needs = field(default_factory=dict)

    @property
    def f16(self) -> FetchParams:
        """Return the unquantised model on the surgeon; how large it is, only roughly and at most."""
        return FetchParams(sha256=self.model.f16_sha256, size_bytes=_F16_RATIO * self.model.base_size_bytes)

    @property
    def request(self) -> FetchParams:
        """Return what a root is asked for to get the base model."""
        return FetchParams(sha256=self.model.base_sha256, size_bytes=self.model.base_size_bytes)

    @property
    def requests(self) -> tuple[FetchParams, ...]:
        """Return what a root is asked for to get everything."""
        return (self.request, *(request for files in self.engine_files.values() for request in files.requests))


@dataclass(frozen=True)
class ModelFile:
    """A file that an engine loads, and the base it is made from; without a plan it is the base itself."""

    base: FetchParams
    request: FetchParams
    tokenizer: FetchParams | None = None
    surgeries: tuple[SurgeryTable, ...] = ()
    """What made it, where that is more than one plan, which nodes cannot apply."""

    @property
    def requests(self) -> tuple[FetchParams, ...]:
        """Return what a root needs for it; the base only where the root can make the file from it."""
        base = self.base if self.request.plan is not None and self.base.sha256 != self.request.sha256 else None
        return tuple(filter(None, (base, self.request, self.tokenizer)))

    @property
    def remade_by(self) -> ApplyParams | None:
        """Return how the surgeon makes the file again; None where nothing made it."""
        if self.surgeries:
            return ApplyParams(base_sha256=self.base.sha256, surgeries=self.surgeries)
        plan = self.request.plan
        return None if plan is None else ApplyParams(base_sha256=self.base.sha256, plan=plan)


@dataclass(frozen=True)
class Variant:
    """What a configuration's plan made: the file that is scored, and the one whose energy is measured."""

    base: Base
    plan: PlanResult | None
    scored: ModelFile
    measured: ModelFile
    surgeries: SurgeriesDone | None = None


async def prepare_bases(context: CampaignContext, pins: SurgeonPins) -> dict[str, Base]:
    """Return the base model in each quantisation of the matrix; every root has them, and every configuration can run.

    Raises:
        ConfigurationError: a configuration can never run, said before anything is measured.
        EpiError: an agent's error.
    """
    spec, lab = context.spec, context.lab
    configurations = configurations_of(spec)
    bases = {}
    for quantization in dict.fromkeys([spec.quantization, *(one.quantization for one in configurations)]):
        engines = {one.engine for one in configurations if one.quantization == quantization}
        bases[quantization] = await _prepare_base(context, pins, quantization, engines)
    for one in configurations:
        base, nodes = bases[one.quantization], nodes_of(one, list(lab.nodes))
        check_fit(one, ModelFacts(spec.model, base.model.no_surgery, base.model.n_kv_heads), len(nodes))
    requests = {request.sha256: request for base in bases.values() for request in base.requests}
    deliveries: dict[NodeName, FetchResult] = {}
    for root in roots_of(configurations, list(lab.nodes)):  # only they read model files: engines hand out the layers
        await pin(context, lab.nodes[root], root, tuple(requests), pins.ended)
        for request in requests.values():
            fetch_s = spec.timeouts.fetch("fetch_base", request.size_bytes)
            call = Call(root, lab.nodes[root], "fetch", request, fetch_s)
            place = "" if request == bases[spec.quantization].request else request.sha256[:12]
            delivery = await context.caller.idempotent(place, "fetch_base", call, FetchResult)
            if not place:
                deliveries[root] = delivery
    needs = await needs_of_searches(context)
    bases[spec.quantization] = replace(bases[spec.quantization], deliveries=deliveries)
    return {name: replace(base, search_needs=needs) for name, base in bases.items()}


async def _prepare_base(
    context: CampaignContext, pins: SurgeonPins, quantization: str, engines: Collection[EngineName]
) -> Base:
    """Convert, quantise and observe the model; what only another quantisation needs is journaled under its name."""
    spec, lab = context.spec, context.lab
    place = "" if quantization == spec.quantization else quantization.lower()
    prepare_s = spec.timeouts.unsized("prepare")
    prepare = PrepareParams(model=spec.model, quantization=quantization)
    call = Call("surgeon", lab.surgeon, "prepare", prepare, prepare_s)
    model = await pins.made(
        place, "prepare", call, PrepareResult, lambda result: (result.f16_sha256, result.base_sha256)
    )
    engine_files: dict[str, EngineFiles] = {}
    for engine in (ENGINES.get(name) for name in sorted(engines)):
        if engine.model_format != GGUF and engine.model_format not in engine_files:
            files = []
            for form in filter(None, (engine.model_format, engine.tokenizer_format)):
                wanted = ConvertParams.model_validate({"model": spec.model, "format": form})
                call = Call("surgeon", lab.surgeon, "convert", wanted, prepare_s)
                made = await pins.made(form, "prepare", call, FileResult, lambda result: (result.sha256,))
                files.append(FetchParams(sha256=made.sha256, size_bytes=made.size_bytes))
            engine_files[engine.model_format] = EngineFiles(files[0], files[1] if engine.tokenizer_format else None)
    statistics = None
    if not model.no_surgery:
        observe = ObserveParams(model_sha256=model.f16_sha256, corpus=spec.corpus)
        call = Call("surgeon", lab.surgeon, "observe", observe, spec.timeouts.unsized("observe"))
        statistics = await pins.made(place, "observe", call, ObserveResult, lambda result: (result.statistics_sha256,))
    return Base(model, statistics, engine_files)


async def prepare_variant(
    context: CampaignContext, bases: Mapping[str, Base], pins: SurgeonPins, configuration: Configuration
) -> Variant:
    """Plan, apply and check one configuration; what the surgeon lost meanwhile is made again.

    Raises:
        ConfigurationError: the variant failed its sanity check, with the reason.
        EpiError: an agent's error.
    """
    try:
        return await _prepare_variant(context, bases, pins, configuration)
    except InfrastructureError:
        if not await pins.restore():
            raise
    return await _prepare_variant(context, bases, pins, configuration)


async def _prepare_variant(
    context: CampaignContext, bases: Mapping[str, Base], pins: SurgeonPins, configuration: Configuration
) -> Variant:
    spec, lab, caller = context.spec, context.lab, context.caller
    base = bases[configuration.quantization]
    plan, surgeries = None, None
    named = (spec.variants or {}).get(configuration.variant or "")
    lists = ListMaker(context, configuration, base.f16, base.search_needs)
    if (file := given_file(spec, configuration)) is not None:
        scored = await _given(context, pins, configuration, file)
    elif named is not None and not named.is_one_plan and base.statistics is not None:
        tables = await lists.decided(named, base.statistics.statistics_sha256)
        made_from = base.request if named.base == "quantized" else base.f16
        scored, surgeries = await _listed(lists, configuration.id, tables, made_from)
        if (whole := scored.request.plan) is not None:
            plan = PlanResult(plan=whole, plan_hash=surgeries.sha256)
    else:
        if base.statistics is not None:
            maker = PlanMaker(context, base.model.f16_sha256, base.statistics.statistics_sha256, base.search_needs)
            plan = await maker.plan(configuration)
        scored = await _apply(context, configuration.id, base.request, plan)
    check = await caller.idempotent(
        configuration.id, "validate",
        Call("surgeon", lab.surgeon, "validate", ValidateParams(
            sha256=scored.request.sha256, baseline_sha256=base.model.base_sha256,
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
    if (form := ENGINES.get(configuration.engine).model_format) != GGUF:
        if form not in base.engine_files:
            raise BugError(f"no files for {configuration.engine} were made", where=configuration.id)
        files = base.engine_files[form]
        if surgeries is not None:
            measured, _ = await _listed(lists, f"{configuration.id}.m", surgeries.surgeries, files.model)
        else:
            measured = await _apply(context, f"{configuration.id}.m", files.model, plan)
        measured = replace(measured, tokenizer=files.tokenizer)
    return Variant(base, plan, scored, measured, surgeries)


async def _listed(
    lists: ListMaker, subject: str, tables: tuple[SurgeryTable, ...], base: FetchParams
) -> tuple[ModelFile, SurgeriesDone]:
    """Let the surgeon do surgeries in order to a base, and prove the file."""
    made = await lists.applied(subject, tables, base)
    done = await lists.proved(subject, tables, base, made)
    file = FetchParams(
        sha256=made.sha256, size_bytes=made.size_bytes, base_sha256=None if made.plan is None else base.sha256,
        plan=made.plan,
    )  # fmt: skip
    return ModelFile(base, file, surgeries=tables), done


async def _given(context: CampaignContext, pins: SurgeonPins, configuration: Configuration, name: str) -> ModelFile:
    """Let the surgeon bring a file that somebody else cut into the configuration's quantisation, if it is not yet."""
    prepare = PrepareParams(model=name, quantization=configuration.quantization)
    call = Call("surgeon", context.lab.surgeon, "prepare", prepare, context.spec.timeouts.unsized("prepare"))
    made = await pins.made(configuration.id, "prepare", call, PrepareResult, lambda result: (result.base_sha256,))
    request = FetchParams(sha256=made.base_sha256, size_bytes=made.base_size_bytes)
    return ModelFile(request, request)


async def _apply(context: CampaignContext, name: str, base: FetchParams, plan: PlanResult | None) -> ModelFile:
    """Let the surgeon cut a base by the plan; without one the base stays as it is."""
    if plan is None:
        return ModelFile(base, base)
    file = await context.caller.idempotent(
        name, "apply",
        Call("surgeon", context.lab.surgeon, "apply", ApplyParams(base_sha256=base.sha256, plan=plan.plan),
             context.spec.timeouts.rewrite("apply", base.size_bytes)),
        ApplyResult,
    )  # fmt: skip
    return ModelFile(base, FetchParams(
        sha256=file.sha256, size_bytes=file.size_bytes, base_sha256=base.sha256, plan=plan.plan,
    ))  # fmt: skip
