"""Everything that can be refused before the first hour of work: a spec held against the lab that is to measure it.

Each refusal names the field, the reason and what would work. A configuration that can never run is named alone; with
`skip_impossible` the others run and it is listed as missing. Not here: what a spec says by itself (`domain.campaign`).
"""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.campaign.lab import Lab
from orchestrator.campaign.memory import fitted
from orchestrator.campaign.topology import ModelFacts, check_fit, nodes_of
from orchestrator.campaign.variant_admission import check_variant, known_names, refused_by_surgeon
from orchestrator.domain.campaign.cells import ModelShape, ShapeUnknownError
from orchestrator.domain.campaign.matrix import parse_selection, written_out
from orchestrator.domain.campaign.schedule import configurations_of
from orchestrator.domain.campaign.spec import CampaignSpec
from shared.checkpoints.ggml_types import FILE_TYPES
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import Configuration
from shared.wire.engines.registry import ENGINES
from shared.wire.surgeon_catalogue import Catalogue, CatalogueModel

QUANTIZATIONS = frozenset(FILE_TYPES.values())


async def admit(spec: CampaignSpec, lab: Lab) -> CampaignSpec:
    """Return the spec with the model's shape filled in, and what is left out of it; nothing was started.

    Raises:
        ConfigurationError: a field that this lab cannot serve.
        InfrastructureError: the surgeon does not answer.
    """
    check_alone(spec)
    check_scorers(spec, list(lab.scorers))
    catalogue = await lab.catalogue()
    await asyncio.to_thread(check_tasks, spec, lab.settings.task_dirs)
    admitted = held_against(spec, catalogue, list(lab.nodes))
    if spec.intelligence.where is None:
        admitted = admitted.model_copy(update={"accuracy_where": "scorers" if lab.scorers else "cluster"})
    refused = await refused_by_surgeon(admitted, lab)
    if refused:
        admitted = _without(admitted, {**(admitted.left_out or {}), **refused}, _model(spec, catalogue))
    return await fitted(admitted, lab)


def is_admitted(spec: CampaignSpec) -> bool:
    """Tell whether a spec was held against a lab: its model's shape is known, and on how few nodes `fewest` serves."""
    return spec.model_shape is not None and not any(
        one.fewest and one.n_nodes is None for one in configurations_of(spec)
    )


def check_scorers(spec: CampaignSpec, scorers: list[str]) -> None:
    """Refuse scorers that the lab does not have.

    Raises:
        ConfigurationError: it has none.
    """
    if spec.scored == "scorers" and not scorers:
        raise ConfigurationError(
            "the lab has no scorers", where="accuracy.where",
            hint='name some in the orchestrator\'s settings ([[scorers]]), or say where = "once"',
        )  # fmt: skip


def check_alone(spec: CampaignSpec) -> None:
    """Refuse at once what needs no lab to be seen.

    Raises:
        ConfigurationError: a configuration that does not exist, whatever the model.
    """
    if spec.skip_impossible:
        return
    try:
        configurations_of(spec)
    except ShapeUnknownError:
        return  # percentages mean something when the surgeon has told the model's shape


def held_against(spec: CampaignSpec, catalogue: Catalogue, nodes: list[str]) -> CampaignSpec:
    """Return the spec as `admit` does, held against what a surgeon says of itself and the names of the nodes.

    Raises:
        ConfigurationError: a field that they cannot serve.
    """
    model = _model(spec, catalogue)
    known = spec.model_copy(update={"model_shape": _shape(model)})
    for name, variant in (spec.variants or {}).items():
        check_variant(f"variants.{name}", variant, known, catalogue)
    return _without(known, dict(_refused(known, model, catalogue, nodes)), model)


def _without(spec: CampaignSpec, refused: dict[str, str], model: CatalogueModel) -> CampaignSpec:
    """Return the spec without what can never run, where its author wants that; else refuse it."""
    if refused and not spec.skip_impossible:
        name, reason = next(iter(refused.items()))
        raise ConfigurationError(
            f"{len(refused)} configuration(s) can never run, first: {reason}", where=f"configurations: {name}",
            hint="leave them out, or set skip_impossible = true (schema_version = 2) to measure the others",
        )  # fmt: skip
    admitted = spec.model_copy(update={"left_out": refused or None})
    _check_layouts(parse_selection(admitted.selection, admitted.usual()), model)
    return admitted


def _check_layouts(configurations: Sequence[Configuration], model: CatalogueModel) -> None:
    """Refuse to compare what only looks alike.

    Raises:
        ConfigurationError: variants in both layouts of a model in which these are different surgeries.
    """
    one_of = {one.layout: one.id for one in configurations if one.is_pruned}
    if len(one_of) > 1 and not model.layouts_agree:
        raise ConfigurationError(
            f"removing experts ({one_of['uniform']}) and forbidding them ({one_of['biased']}) are different surgeries"
            f" in {model.architecture or model.name}: the share of the softmax that a removed expert had goes to"
            " the others, a forbidden one keeps it", where="configurations",
            hint="measure the layouts in two campaigns: dropN_all in one, layer groups in the other",
        )  # fmt: skip


def _model(spec: CampaignSpec, catalogue: Catalogue) -> CatalogueModel:
    model = catalogue.model(spec.model)
    if model is None:
        raise ConfigurationError("the surgeon has no such model", where=f"model: {spec.model}", hint=known_names(
            one.name for one in catalogue.models
        ))  # fmt: skip
    if model.problem:
        raise ConfigurationError(f"the surgeon cannot read it: {model.problem}", where=f"model: {spec.model}")
    if not model.no_surgery and spec.corpus not in catalogue.corpora:
        raise ConfigurationError(
            "the surgeon has no such corpus", where=f"corpus: {spec.corpus}", hint=known_names(catalogue.corpora)
        )
    if not model.no_surgery and spec.method not in catalogue.methods:
        raise ConfigurationError(
            "the surgeon has no such ranking", where=f"method: {spec.method}", hint=known_names(catalogue.methods)
        )
    return model


def _shape(model: CatalogueModel) -> ModelShape | None:
    if not model.n_layers or not model.n_experts or not model.experts_per_token:
        return None
    return ModelShape(
        n_layers=model.n_layers, n_experts=model.n_experts, experts_per_token=model.experts_per_token,
        architecture=model.architecture, n_kv_heads=model.n_kv_heads,
    )  # fmt: skip


def _refused(
    spec: CampaignSpec, model: CatalogueModel, catalogue: Catalogue, nodes: list[str]
) -> Iterator[tuple[str, str]]:
    """Yield each configuration that can never run, as it is written, and why."""
    usual = spec.usual()
    for name in written_out(spec.selection):
        try:
            for configuration in parse_selection(name, usual.model_copy(update={"references": {}})):
                _check_configuration(configuration, model, catalogue, nodes)
        except ConfigurationError as error:
            yield name, f"{error.message}" + (f" ({error.hint})" if error.hint else "")


def _check_configuration(
    configuration: Configuration, model: CatalogueModel, catalogue: Catalogue, nodes: list[str]
) -> None:
    where = configuration.id
    facts = ModelFacts(model.name, model.no_surgery, model.n_kv_heads)
    count = len(nodes_of(configuration, nodes))
    if configuration.fewest and configuration.n_nodes is None:  # memory decides, among what the engine can use
        count = ENGINES.get(configuration.engine).most_nodes(count, model.n_kv_heads)
    check_fit(configuration, facts, count)
    if configuration.quantization not in QUANTIZATIONS:
        raise ConfigurationError(f"llama.cpp has no quantisation {configuration.quantization}", where=where)
    if model.quantization not in (None, configuration.quantization) and configuration.variant is None:
        raise ConfigurationError(
            f"{model.name} is {model.quantization} already and cannot be made {configuration.quantization}",
            where=where, hint=f'set quantization = "{model.quantization}"',
        )  # fmt: skip
    if not configuration.is_pruned and configuration.layout == "uniform":
        return
    if configuration.layout not in model.layouts:
        raise ConfigurationError(
            f"{model.architecture or model.name} has no layout {configuration.layout}"
            + (f": {model.no_biased}" if model.no_biased else ""),
            where=where, hint="use variants that cut all layers alike (dropN_all)",
        )  # fmt: skip
    if configuration.variant is None and configuration.depth and configuration.method not in catalogue.methods:
        hint = known_names(catalogue.methods)
        if configuration.method in catalogue.searches:
            hint = (
                f"a search needs parameters: make it a variant, experts = {{ search = {configuration.method!r}, ... }}"
            )
        raise ConfigurationError(f"the surgeon has no ranking {configuration.method!r}", where=where, hint=hint)


def check_tasks(spec: CampaignSpec, task_dirs: Sequence[Path]) -> None:
    """Refuse a task that nobody knows, by its name; importing lm-eval takes seconds, so call it in a thread.

    Raises:
        ConfigurationError: an unknown task.
        NotFoundError: an unknown task or directory of tasks.
    """
    from orchestrator.benchmarks.task_files import TaskFiles

    files = TaskFiles(tuple(task_dirs))
    for task in spec.intelligence.tasks:
        files.find(task.task)
