"""`epi surgery search`: NAEE by reconstruction loss, EEP by accuracy on questions, and what skipping would do."""

from pathlib import Path
from typing import Annotated

import typer

from shared.errors import ConfigurationError
from shared.records import canonical_json
from surgeon.cli.output import Json, Threads, errors, progress, show

search_app = typer.Typer(
    help="Search for the experts to keep.", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)
Model = Annotated[Path, typer.Argument(help="GGUF, usually F16.")]
Depth = Annotated[int, typer.Option(min=1, help="Experts to drop in each layer.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Plan to write.")]
Questions = Annotated[
    list[str], typer.Option("--questions", help="FILE.jsonl or FILE.jsonl=TEMPLATE with {question}; may be repeated.")
]


@search_app.command()
def naee(
    model: Model,
    depth: Depth,
    statistics: Annotated[Path, typer.Option("--statistics", "-s", help="Observed with --reservoir.")],
    output: Output,
    max_subsets: Annotated[int, typer.Option(min=1, help="Above it: greedy with swaps.")] = 50_000,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a long search.")] = False,
    as_json: Json = False,
) -> None:
    """Keep the subset of each layer that changes its output least; says how many subsets before it starts.

    Example: epi surgery search naee mixtral-f16.gguf --depth 2 -s statistics.safetensors -o naee2.json
    """
    from surgeon.search.run import naee_size, run_naee

    size = naee_size(model, depth, max_subsets)
    total = size.subsets_per_layer
    way = f"all {total} subsets a layer" if size.exhaustive else f"greedy with swaps ({total} subsets are too many)"
    errors.print(f"NAEE over {size.n_layers} layers: {way}", highlight=False)
    if size.exhaustive and total > 10_000 and not yes and not as_json:
        typer.confirm("go on?", abort=True, err=True)
    with progress("naee") as tell:
        plan, report = run_naee(model, statistics, depth, max_subsets=max_subsets, on_progress=tell)
    losses = ", ".join(f"{loss:.4g}" for loss in report.losses)
    output.write_bytes(canonical_json(plan) + b"\n")
    show(as_json, {"target": str(output), "plan_hash": plan.plan_hash(), **report.model_dump(mode="json")},
         f"{output}: plan {plan.plan_hash()[:16]}, losses {losses}")  # fmt: skip


@search_app.command()
def eep(
    model: Model,
    depth: Depth,
    questions: Questions,
    output: Output,
    iterations: Annotated[int, typer.Option(min=0, help="The paper has 40.")] = 40,
    offspring: Annotated[int, typer.Option(min=1, help="New candidates an iteration.")] = 12,
    start: Annotated[list[Path] | None, typer.Option(help="Plans to begin with; may be repeated.")] = None,
    cache: Annotated[Path | None, typer.Option(help="File of known candidates: a killed search goes on.")] = None,
    train_share: Annotated[float, typer.Option(min=0.01, max=0.99, help="Of the questions, for the search.")] = 0.5,
    seed: Annotated[int, typer.Option(help="One seed, one result.")] = 0,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Evolve the sets of kept experts by accuracy on questions; reports the split that the search never sees.

    Example: epi surgery search eep demo-f16.gguf --depth 8 --questions arc.jsonl -o eep8.json --cache eep8.cache
    """
    from surgeon.plan_file import read_plan
    from surgeon.search.eep import EepOptions
    from surgeon.search.run import run_eep

    options = EepOptions(iterations=iterations, offspring=offspring, seed=seed)
    with progress("eep") as tell:
        plan, report = run_eep(
            model, [_question_file(item) for item in questions], depth, options,
            start=[read_plan(path).kept for path in start or []], cache=cache, train_share=train_share,
            threads=threads, on_progress=tell,
        )  # fmt: skip
    output.write_bytes(canonical_json(plan) + b"\n")
    show(as_json, {"target": str(output), "plan_hash": plan.plan_hash(), **report.model_dump(mode="json")},
         f"{output}: accuracy {report.train:.3f} on the search's questions, {report.validation:.3f} on unseen ones"
         f" (the whole model: {report.validation_base:.3f}); {report.evaluated} candidates")  # fmt: skip


@search_app.command("eep-merge")
def eep_merge(
    model: Model,
    plan: Annotated[Path, typer.Option(help="Plan of the prune phase: where the search begins.")],
    questions: Questions,
    output: Annotated[Path, typer.Option("--output", "-o", help="Merge matrices to write.")],
    iterations: Annotated[int, typer.Option(min=0, help="The paper has 160.")] = 160,
    offspring: Annotated[int, typer.Option(min=1, help="New candidates an iteration.")] = 8,
    cache: Annotated[Path | None, typer.Option(help="File of known candidates: a killed search goes on.")] = None,
    train_share: Annotated[float, typer.Option(min=0.01, max=0.99, help="Of the questions, for the search.")] = 0.5,
    seed: Annotated[int, typer.Option(help="One seed, one result.")] = 0,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Evolve matrices that mix dropped experts into kept ones; the model must be F16 or F32.

    Example: epi surgery search eep-merge demo-f16.gguf --plan eep8.json --questions arc.jsonl -o merge8.safetensors
    """
    from surgeon.merging import MergeMatrices
    from surgeon.plan_file import read_plan
    from surgeon.search.eep import Fitness, FitnessCache, Generation
    from surgeon.search.eep_merge import MergeOptions, WeightsInMemory, search_merge
    from surgeon.search.task_fitness import TaskFitness

    start = MergeMatrices.of_plan(read_plan(plan))
    files = [_question_file(item) for item in questions]
    with (
        TaskFitness(model, files, train_share=train_share, threads=threads, use_mmap=False) as fitness,
        progress("eep-merge") as tell,
    ):
        if start.experts.shape[::2] != (fitness.n_layers, fitness.n_experts):
            raise ConfigurationError("the plan is for another model", where=str(plan))
        weights = WeightsInMemory(fitness.model, fitness.n_layers)
        slots = (tuple(range(start.experts.shape[1])),) * fitness.n_layers

        def measure(matrices: MergeMatrices) -> Fitness:
            weights.merge(matrices)
            return fitness.train(slots)

        def report(generation: Generation) -> None:
            note = f"best {generation.best.accuracy:.3f} after {generation.n_evaluated}"
            tell((generation.iteration + 1) / (iterations + 1), note)

        found = search_merge(
            start, measure, MergeOptions(iterations=iterations, offspring=offspring, seed=seed),
            cache=FitnessCache(cache, f"{fitness.identity} merge"), on_generation=report,
        )  # fmt: skip
        weights.merge(start)
        before = fitness.validation(slots)
        weights.merge(found.best)
        after = fitness.validation(slots)
    found.best.save(output)
    show(as_json, {"target": str(output), "train": found.fitness.accuracy, "validation": after.accuracy,
                   "validation_pruned": before.accuracy},
         f"{output}: accuracy {found.fitness.accuracy:.3f} on the search's questions, {after.accuracy:.3f} on unseen"
         f" ones (only pruned: {before.accuracy:.3f})")  # fmt: skip


@search_app.command()
def skipping(
    model: Model,
    statistics: Annotated[Path, typer.Option("--statistics", "-s", help="File from `epi surgery observe`.")],
    questions: Questions,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Say what NAEE's dynamic skipping would cost in accuracy and save in expert computations.

    Example: epi surgery search skipping demo-f16.gguf -s statistics.safetensors --questions arc.jsonl
    """
    from shared import llama
    from surgeon import statistics as files
    from surgeon.choices import QUESTION_TEMPLATE, ChoiceScorer, load_questions
    from surgeon.skipping import DynamicSkipping, median_ratios

    betas = median_ratios(files.load(statistics)).tolist()
    rows = []
    with llama.Model(model) as loaded:
        for path, template in (_question_file(item) for item in questions):
            accuracies = []
            skipper = DynamicSkipping(betas)
            for callback in (None, skipper):
                scorer = ChoiceScorer(
                    loaded, load_questions(path), template=template or QUESTION_TEMPLATE, threads=threads,
                    on_tensor=callback,
                )  # fmt: skip
                accuracies.append(scorer.score().accuracy)
                scorer.close()
            rows.append({"questions": str(path), "accuracy": accuracies[0], "accuracy_skipping": accuracies[1],
                         "share_skipped": skipper.share_skipped})  # fmt: skip
    lines = [f"{row['questions']}: accuracy {row['accuracy']:.3f} -> {row['accuracy_skipping']:.3f},"
             f" {row['share_skipped']:.1%} of expert computations skipped" for row in rows]  # fmt: skip
    lines.append("Stock engines compute skipped experts all the same: this saves no energy there.")
    show(as_json, {"betas": betas, "tasks": rows, "saves_energy_on_stock_engines": False}, "\n".join(lines))


def _question_file(item: str) -> tuple[Path, str]:
    path, _, template = item.partition("=")
    template = template.replace("\\n", "\n")
    if template and "{question}" not in template:
        raise ConfigurationError("the template has no {question}", where=item)
    return Path(path), template
