"""Whole searches from files to a plan, for the command line and the daemon alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.checkpoints import surgery
from shared.files.durability import hash_file
from shared.kernel.errors import ConfigurationError
from shared.kernel.progress import Progress
from shared.kernel.records import SurgeryPlan
from surgeon.kinds.merge_experts import MergeExperts
from surgeon.kinds.plan import plan_of
from surgeon.kinds.prune_experts import PruneExperts
from surgeon.observation import statistics as files
from surgeon.planning.merging import MergeArrays
from surgeon.search.eep import Candidate, EepOptions, Fitness, FitnessCache, Generation, search
from surgeon.search.eep_merge import MergeOptions, WeightsInMemory, search_merge
from surgeon.search.naee import MAX_SUBSETS, ReconstructionLoss, n_subsets, search_layer
from surgeon.search.offline_experts import LayerExperts
from surgeon.search.reports import EepReport, NaeeReport
from surgeon.search.task_fitness import TaskFitness


@dataclass(frozen=True)
class NaeeSize:
    """How large a search is: known before it starts."""

    n_layers: int
    subsets_per_layer: int
    exhaustive: bool


def naee_size(model: Path, depth: int, max_subsets: int = MAX_SUBSETS) -> NaeeSize:
    """Return how many subsets a layer has.

    Raises:
        ConfigurationError: nothing would be left.
    """
    info = surgery.describe(model)
    if depth >= info.n_experts:
        raise ConfigurationError(f"dropping {depth} of {info.n_experts} experts leaves nothing")
    total = n_subsets(info.n_experts, info.n_experts - depth)
    return NaeeSize(info.n_layers, total, total <= max_subsets)


def run_naee(
    model: Path, statistics: Path, depth: int, *, max_subsets: int = MAX_SUBSETS, on_progress: Progress
) -> tuple[SurgeryPlan, NaeeReport]:
    """Search every layer.

    Raises:
        ConfigurationError: statistics of another model or without block inputs, or an impossible depth.
    """
    found, sha256 = files.load(statistics), hash_file(model)
    if found.provenance.model_sha256 != sha256:
        raise ConfigurationError("the statistics are of another model", where=str(statistics))
    if "inputs" not in found.reservoir:
        raise ConfigurationError("no block inputs in the statistics", hint="observe with a reservoir of some hundred")
    size = naee_size(model, depth, max_subsets)
    n_experts, k = found.provenance.n_experts, found.provenance.experts_per_token
    kept: list[tuple[int, ...]] = []
    losses: list[float] = []
    for layer in range(size.n_layers):
        experts = LayerExperts.load(model, layer)
        inputs = found.reservoir["inputs"][layer]
        loss = ReconstructionLoss(experts.probabilities(inputs), experts.outputs(inputs), k)

        def report(done: int, expected: int, layer: int = layer) -> None:
            on_progress((layer + done / expected) / size.n_layers, f"layer {layer}")

        subset = search_layer(loss, n_experts - depth, max_subsets=max_subsets, on_progress=report)
        kept.append(subset.kept)
        losses.append(subset.loss)
    prune = PruneExperts(
        n_experts=n_experts, kept=tuple(kept), method="naee" if size.exhaustive else "naee_greedy_with_swaps",
        parameters={"depth": depth, "tokens": len(found.reservoir["priority"])}, base_sha256=sha256,
        statistics_sha256=hash_file(statistics), router_sha256=surgery.router_sha256(model),
    )  # fmt: skip
    plan = plan_of((prune,), size.n_layers, n_experts)
    return plan, NaeeReport(losses=tuple(losses), exhaustive=size.exhaustive)


def run_eep(
    model: Path,
    questions: Sequence[tuple[Path, str]],
    depth: int,
    options: EepOptions,
    *,
    start: Sequence[Candidate] = (),
    cache: Path | None = None,
    train_share: float = 0.5,
    threads: int = 1,
    on_progress: Progress,
) -> tuple[SurgeryPlan, EepReport]:
    """Run the prune phase and measure the result on the questions it never saw.

    Raises:
        ConfigurationError: no questions, or fewer experts left than are active per token.
    """
    with TaskFitness(model, questions, train_share=train_share, threads=threads) as fitness:
        keep = fitness.n_experts - depth
        if keep < fitness.experts_per_token:
            raise ConfigurationError(f"{keep} experts would be left, {fitness.experts_per_token} are active per token")

        found = search(
            fitness.n_experts, [keep] * fitness.n_layers, fitness.train, options, start=start,
            cache=FitnessCache(cache, f"{fitness.identity} {keep}"),
            on_generation=_publisher(options.iterations, on_progress),
        )  # fmt: skip
        summary = EepReport(
            train=found.fitness.accuracy, validation=fitness.validation(found.best).accuracy,
            validation_base=fitness.validation(None).accuracy, evaluated=found.n_evaluated,
        )  # fmt: skip
        prune = PruneExperts(
            n_experts=fitness.n_experts, kept=found.best, method="eep_prune",
            parameters={"depth": depth, "iterations": options.iterations, "seed": options.seed,
                        "train_accuracy": summary.train, "validation_accuracy": summary.validation},
            base_sha256=hash_file(model), router_sha256=surgery.router_sha256(model),
        )  # fmt: skip
        plan = plan_of((prune,), fitness.n_layers, fitness.n_experts)
    return plan, summary


def run_eep_merge(
    model: Path,
    plan: SurgeryPlan,
    questions: Sequence[tuple[Path, str]],
    options: MergeOptions,
    *,
    cache: Path | None = None,
    train_share: float = 0.5,
    threads: int = 1,
    on_progress: Progress,
) -> tuple[SurgeryPlan, EepReport]:
    """Run the merge phase from `plan` and measure the result on the questions it never saw.

    Raises:
        ConfigurationError: no questions, a plan for another model, or quantised weights.
    """
    surgery.recipe(model, plan)
    start = MergeArrays.of_plan(plan)
    with TaskFitness(model, questions, train_share=train_share, threads=threads, use_mmap=False) as fitness:
        weights = WeightsInMemory(fitness.model, fitness.n_layers)
        slots = (tuple(range(len(plan.kept[0]))),) * fitness.n_layers

        def measure(matrices: MergeArrays) -> Fitness:
            weights.merge(matrices)
            return fitness.train(slots)

        found = search_merge(
            start, measure, options, cache=FitnessCache(cache, f"{fitness.identity} merge {plan.plan_hash()}"),
            on_generation=_publisher(options.iterations, on_progress),
        )  # fmt: skip
        weights.merge(start)
        before = fitness.validation(slots).accuracy
        weights.merge(found.best)
        summary = EepReport(
            train=found.fitness.accuracy, validation=fitness.validation(slots).accuracy, validation_base=before,
            evaluated=found.generations[-1].n_evaluated,
        )  # fmt: skip
    parameters = {**plan.parameters, "merge_iterations": options.iterations, "merge_seed": options.seed,
                  "train_accuracy": summary.train, "validation_accuracy": summary.validation}  # fmt: skip
    provenance = {"method": "eep_prune_and_merge", "parameters": parameters,
                  "base_sha256": hash_file(model), "router_sha256": surgery.router_sha256(model)}  # fmt: skip
    return MergeExperts(matrices=found.best.record()).onto(plan.model_copy(update=provenance)), summary


def _publisher(iterations: int, on_progress: Progress) -> Callable[[Generation], None]:
    def publish(generation: Generation) -> None:
        note = f"best {generation.best.accuracy:.3f} after {generation.n_evaluated}"
        on_progress((generation.iteration + 1) / (iterations + 1), note)

    return publish
