"""Whether steps can be done to a configured model, before any work: nothing is read but headers.

Choices that are still to be made count with the numbers of experts that they will leave, not with which.
"""

from collections.abc import Sequence
from pathlib import Path

import gguf as gguf_library
from pydantic import ValidationError

from shared.checkpoints import surgery as checkpoints
from shared.kernel.defects import first_defect
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import SurgeryPlan
from shared.wire.surgeon_jobs import PlanOptions, SearchOptions
from shared.wire.surgeries import CheckParams, CheckStep, ModelAfter
from surgeon.conversion.bases import UNQUANTISED, as_gguf
from surgeon.conversion.families import FAMILIES
from surgeon.kinds.base import ModelFacts, Surgery
from surgeon.kinds.plan import Plan
from surgeon.kinds.registry import read_list
from surgeon.kinds.sequence import check
from surgeon.planning.allocation import layers_of
from surgeon.rankings.registry import ranking_named
from surgeon.search.registry import search_named
from surgeon.settings import SurgeonSettings


def check_steps(params: CheckParams, settings: SurgeonSettings) -> ModelAfter:
    """Return what the model is after all steps.

    Raises:
        ConfigurationError: one that cannot be done, with its place in the list and the reason.
        NotFoundError: no such model or question file.
    """
    model = base_facts(settings.model_path(params.model), params)
    after, surgeries = model, list[Surgery]()
    for number, step in enumerate(params.steps, start=1):
        try:
            surgeries += _surgeries(step, after, settings)
            after = check(surgeries, model)
        except ConfigurationError as error:
            if _is_mended_later(step, params.steps[number:]):
                continue
            where = f"surgery {number}" + (f", {error.where}" if error.where not in ("", model.where) else "")
            raise ConfigurationError(error.message, where=where, hint=error.hint) from error
    return ModelAfter(**after.model_dump(include=set(ModelAfter.model_fields)))


def _is_mended_later(step: CheckStep, later: Sequence[CheckStep]) -> bool:
    """Tell whether a plan may still become possible: fewer active experts may follow in the same pass."""
    return step.surgery is None and any(one.surgery and one.surgery.kind == "experts_per_token" for one in later)


def base_facts(path: Path, params: CheckParams) -> ModelFacts:
    """Return the facts of the base that will be made of a configured model: GGUF in a quantisation, or a .m file.

    Raises:
        ConfigurationError: a model without experts, or of an unknown kind.
        DataError: a damaged file.
    """
    info = checkpoints.describe(path)
    if info.format == "safetensors":
        family = FAMILIES.get(info.architecture)
        name = info.architecture if family is None else gguf_library.MODEL_ARCH_NAMES[family.architecture]
        update = {"format": "gguf", "architecture": name, "quantization": "F16"}
        info = as_gguf(info).model_copy(update=update)
    if params.format == "dllama":
        info = info.model_copy(
            update={"format": "dllama", "quantization": "Q40", "no_biased": "it exists in GGUF only"}
        )
    elif params.quantization is not None and info.quantization in UNQUANTISED:
        info = info.model_copy(update={"quantization": params.quantization})
    return ModelFacts(**info.model_dump(), where=params.model, selectable=info.n_experts)


def _surgeries(step: CheckStep, model: ModelFacts, settings: SurgeonSettings) -> Sequence[Surgery]:
    if step.ranking is not None:
        ranking_named(step.ranking.method, step.ranking.parameters, seed=step.ranking.seed)
        return _nominal(model, _kept_by_ranking(step.ranking, model), step.ranking)
    if step.search is not None:
        return _of_search(step.search, model, settings)
    assert step.surgery is not None
    return read_list([step.surgery.model_dump(mode="json")], "surgery")


def _of_search(options: SearchOptions, model: ModelFacts, settings: SurgeonSettings) -> Sequence[Surgery]:
    search = search_named(options.method, options.parameters)
    for name in options.questions:
        settings.question_file(name)
    search.check(model, options.depth)
    if options.depth is None:
        return ()
    return _nominal(model, [model.n_experts - options.depth] * model.n_layers, None)


def _kept_by_ranking(options: PlanOptions, model: ModelFacts) -> list[int]:
    if options.keep is not None:
        if len(options.keep) != model.n_layers:
            raise ConfigurationError(f"numbers to keep for {len(options.keep)} layers, the model has {model.n_layers}")
        return list(options.keep)
    layers = set(layers_of(options.group, model.n_layers))
    return [model.n_experts - (options.depth or 0) * (layer in layers) for layer in range(model.n_layers)]


def _nominal(model: ModelFacts, counts: Sequence[int], options: PlanOptions | None) -> Sequence[Surgery]:
    """Return a plan that keeps so many experts in each layer."""
    layout, active = ("uniform", None) if options is None else (options.layout, options.experts_per_token)
    try:
        size = model.n_experts // max(model.expert_groups, 1)  # groups are cut alike: their first experts stay
        by_place = sorted(range(model.n_experts), key=lambda expert: (expert % size, expert))
        kept = tuple(tuple(sorted(by_place[: max(count, 0)])) for count in counts)
        plan = SurgeryPlan(n_experts=model.n_experts, kept=kept, layout=layout, experts_per_token=active)
    except ValidationError as error:
        raise ConfigurationError(first_defect(error).reason) from error
    return (Plan(plan=plan),)
