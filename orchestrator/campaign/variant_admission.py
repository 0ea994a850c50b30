"""Named variants held against a surgeon: names, parameters and shapes by its catalogue, steps in order by itself.

Not here: everything else of a spec (`admission`).
"""

from collections.abc import Iterable, Iterator

from orchestrator.campaign.lab import Lab
from orchestrator.domain.campaign.cells import ModelShape, experts_to_drop
from orchestrator.domain.campaign.schedule import configurations_of
from orchestrator.domain.campaign.spec import CampaignSpec, given_file
from orchestrator.domain.campaign.surgeries import (
    AppliedSurgery,
    Drop,
    GivenFile,
    GivenPlan,
    MergeExperts,
    PruneExperts,
    SearchExperts,
    Surgery,
    goes_on,
    layout_of,
)
from orchestrator.domain.campaign.variants import VariantSpec
from shared.kernel.errors import ConfigurationError, NotFoundError
from shared.kernel.records import Configuration
from shared.wire.engines.registry import ENGINES
from shared.wire.names import Parameters
from shared.wire.pruning import PruningOptions
from shared.wire.surgeon_catalogue import Catalogue, MethodInfo
from shared.wire.surgeon_jobs import PlanOptions, SearchOptions
from shared.wire.surgeries import CheckParams, CheckStep, ModelAfter, SurgeryTable


def check_variant(where: str, variant: VariantSpec, spec: CampaignSpec, catalogue: Catalogue) -> None:
    """Refuse a named variant whose parameters the model or the surgeon lacks."""
    shape = spec.model_shape
    for surgery in variant.surgeries:
        if isinstance(surgery, PruneExperts):
            _check_pruning(where, surgery, spec, shape, catalogue)
        elif isinstance(surgery, SearchExperts | MergeExperts):
            _check_search(where, surgery, catalogue)
        elif isinstance(surgery, GivenPlan) and surgery.plan is not None and shape is not None:
            plan = surgery.plan
            if (plan.n_layers, plan.n_experts) != (shape.n_layers, shape.n_experts):
                raise ConfigurationError(
                    f"the plan is for {plan.n_layers} layers of {plan.n_experts} experts, {spec.model} has"
                    f" {shape.n_layers} of {shape.n_experts}", where=f"{where}.plan",
                )  # fmt: skip
            if (fewest := min(map(len, plan.kept))) < (active := spec.experts_per_token or shape.experts_per_token):
                raise ConfigurationError(
                    f"the plan leaves {fewest} experts in a layer, {active} are active per token", where=f"{where}.plan"
                )
        elif isinstance(surgery, GivenFile):
            _check_file(f"{where}.file", surgery.name, spec, catalogue)


def _check_search(where: str, surgery: SearchExperts | MergeExperts, catalogue: Catalogue) -> None:
    check_names(f"{where}.search", (surgery.search,), catalogue.searches, "search")
    info = catalogue.described_as(surgery.search)
    if info is None:
        raise ConfigurationError(f"the surgeon cannot load the search {surgery.search!r}", where=f"{where}.search")
    if ("plan" in info.needs) != goes_on(surgery):
        raise ConfigurationError(
            f"{surgery.search} goes on from a plan" if "plan" in info.needs else f"{surgery.search} goes on from none",
            where=f"{where}.search",
        )  # fmt: skip
    if surgery.questions and "questions" not in (*info.needs, *info.optional):
        raise ConfigurationError(
            f"{surgery.search} takes no questions", where=f"{where}.questions", hint="leave them out"
        )
    if not surgery.questions and "questions" in info.needs:
        raise ConfigurationError(
            f"{surgery.search} searches by accuracy and needs at least one question file", where=f"{where}.questions",
            hint=known_names(catalogue.questions),
        )  # fmt: skip
    check_names(f"{where}.questions", surgery.questions, catalogue.questions, "question file")
    _check_parameters(where, surgery.search, surgery.parameters, info)


def _check_parameters(where: str, method: str, given: Parameters, info: MethodInfo | None) -> None:
    """Refuse parameters that a method has not; whether a value fits, the method says before it begins."""
    known = {parameter.name for parameter in info.parameters} if info is not None else given.keys()
    if extra := sorted(given.keys() - known):
        raise ConfigurationError(
            f"{method} has no parameter {extra[0]!r}", where=f"{where}.{extra[0]}", hint=known_names(known)
        )


def _check_pruning(
    where: str, surgery: PruneExperts, spec: CampaignSpec, shape: ModelShape | None, catalogue: Catalogue
) -> None:
    method = surgery.method or spec.method
    check_names(f"{where}.method", (method,), catalogue.methods, "ranking")
    _check_parameters(f"{where}.parameters", method, surgery.parameters, catalogue.described_as(method))
    check_names(
        f"{where}.domain_weights", tuple(surgery.domain_weights or ()), catalogue.corpora.get(spec.corpus, ()), "domain"
    )
    if shape is None:
        return
    if not isinstance(surgery.layers, str):
        _check_numbers(f"{where}.layers", surgery.layers, shape.n_layers, "layer")
    for layer, experts in surgery.protect.items():
        if layer != "all":
            _check_numbers(f"{where}.protect", (int(layer),), shape.n_layers, "layer")
        _check_numbers(f"{where}.protect.{layer}", experts, shape.n_experts, "expert")
    if surgery.keep is None:
        return
    if len(surgery.keep) != shape.n_layers:
        raise ConfigurationError(
            f"numbers for {len(surgery.keep)} layers, {spec.model} has {shape.n_layers}", where=f"{where}.keep"
        )
    active = spec.experts_per_token or shape.experts_per_token
    if bad := [number for number in surgery.keep if not active <= number <= shape.n_experts]:
        raise ConfigurationError(
            f"{bad[0]} of {shape.n_experts} experts, {active} of them active per token", where=f"{where}.keep",
            hint=f"each number must be {active}..{shape.n_experts}",
        )  # fmt: skip


def _check_file(where: str, name: str, spec: CampaignSpec, catalogue: Catalogue) -> None:
    check_names(where, (name,), tuple(one.name for one in catalogue.models), "model")
    model = catalogue.model(name)
    if model is not None and model.problem:
        raise ConfigurationError(f"the surgeon cannot read it: {model.problem}", where=where)
    if model is not None and model.quantization not in (None, spec.quantization):
        raise ConfigurationError(
            f"{name} is {model.quantization}, the campaign measures {spec.quantization}", where=where,
            hint="compare it in its own quantisation: set quantization, or give an F16 file",
        )  # fmt: skip


async def refused_by_surgeon(spec: CampaignSpec, lab: Lab) -> dict[str, str]:
    """Return each configuration of a named variant whose steps the surgeon cannot do to the model, and why."""
    refused: dict[str, str] = {}
    asked: dict[str, str] = {}
    for configuration in configurations_of(spec):
        if configuration.variant is None or given_file(spec, configuration) is not None:
            continue
        variant = (spec.variants or {})[configuration.variant]
        for params in _checks_of(spec, configuration, variant):
            key = params.model_dump_json()
            if key not in asked:
                asked[key] = await _refusal(lab, params, configuration, variant)
            if asked[key]:
                refused.setdefault(configuration.id, f"variants.{configuration.variant}: {asked[key]}")
    return refused


async def _refusal(lab: Lab, params: CheckParams, configuration: Configuration, variant: VariantSpec) -> str:
    try:
        after = await lab.surgeon.request_as(ModelAfter, "POST", "/v1/checks", json=params.model_dump(mode="json"))
    except (ConfigurationError, NotFoundError) as error:
        return str(error)
    if params.format == "gguf" and after.quantization != configuration.quantization:
        hint = "end with quantize" if variant.base == "f16" else 'leave quantize out, or set base = "f16"'
        return f"the surgeries leave {after.quantization}, the configuration is {configuration.quantization}: {hint}"
    return ""


def _checks_of(spec: CampaignSpec, configuration: Configuration, variant: VariantSpec) -> Iterator[CheckParams]:
    """Yield what the surgeon is asked: the steps on the file that is scored, and on that of another engine."""
    steps = [one for surgery in variant.surgeries if (one := _step_of(spec, configuration, surgery)) is not None]
    if configuration.experts_per_token is not None:
        table = SurgeryTable.model_validate({"kind": "experts_per_token", "k": configuration.experts_per_token})
        steps.append(CheckStep(surgery=table))
    quantization = None if variant.base == "f16" else configuration.quantization
    if steps:
        yield CheckParams(model=spec.model, quantization=quantization, steps=tuple(steps))
    if steps and ENGINES.get(configuration.engine).model_format == "dllama":
        yield CheckParams(model=spec.model, format="dllama", steps=tuple(steps))


def _step_of(spec: CampaignSpec, configuration: Configuration, surgery: Surgery) -> CheckStep | None:
    """Return a surgery as the surgeon is asked for it; None for a plan that only the journal has."""
    if isinstance(surgery, PruneExperts):
        return CheckStep(ranking=PlanOptions(
            method=surgery.method or spec.method, depth=_depth(spec, configuration, surgery.drop), keep=surgery.keep,
            group=surgery.layers, layout=layout_of(surgery),
            **{name: getattr(surgery, name) for name in PruningOptions.model_fields},
        ))  # fmt: skip
    if isinstance(surgery, SearchExperts | MergeExperts):
        drop = surgery.drop if isinstance(surgery, SearchExperts) else None
        return CheckStep(search=SearchOptions(
            method=surgery.search, depth=_depth(spec, configuration, drop), questions=surgery.questions,
            parameters=surgery.parameters,
        ))  # fmt: skip
    if isinstance(surgery, GivenPlan):
        if surgery.plan is None:
            return None
        table = {"kind": "plan", "plan": surgery.plan.model_dump(mode="json") | {"experts_per_token": None}}
        return CheckStep(surgery=SurgeryTable.model_validate(table))
    if isinstance(surgery, AppliedSurgery):
        return CheckStep(surgery=SurgeryTable.model_validate(surgery.model_dump(mode="json")))
    return None


def _depth(spec: CampaignSpec, configuration: Configuration, drop: Drop | None) -> int | None:
    where = f"variants.{configuration.variant}.drop"
    return None if drop is None else experts_to_drop(drop, spec.model_shape, where)


def check_names(where: str, given: tuple[str, ...], known: tuple[str, ...], what: str) -> None:
    """Refuse a name that the surgeon does not have."""
    if missing := [name for name in given if name not in known]:
        raise ConfigurationError(f"the surgeon has no {what} {missing[0]!r}", where=where, hint=known_names(known))


def _check_numbers(where: str, given: tuple[int, ...], count: int, what: str) -> None:
    if bad := [number for number in given if number >= count]:
        raise ConfigurationError(f"there is no {what} {bad[0]}", where=where, hint=f"they are 0..{count - 1}")
    if len(set(given)) != len(given):
        raise ConfigurationError(f"a {what} is given twice", where=where)


def known_names(names: Iterable[str]) -> str:
    """Return a hint with what there is."""
    return f"it has {', '.join(sorted(names)) or 'none'}"
