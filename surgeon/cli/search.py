"""`epi surgery search`: NAEE by reconstruction loss, EEP by accuracy on questions, and what skipping would do."""

from pathlib import Path
from typing import Annotated

import typer

from shared.kernel.errors import ConfigurationError
from surgeon.cli.output import Json, Threads, absolute, errors, run_task, show
from surgeon.planning.plan_file import write_plan
from surgeon.work.tasks import EepMergeTask, EepTask, NaeeTask, SkippingTask

app = typer.Typer(
    help="Search for the experts to keep.", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)
Model = Annotated[Path, typer.Argument(help="GGUF, usually F16.")]
Depth = Annotated[int, typer.Option(min=1, help="Experts to drop in each layer.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Plan to write.")]
Questions = Annotated[
    list[str], typer.Option("--questions", help="FILE.jsonl or FILE.jsonl=TEMPLATE with {question}; may be repeated.")
]
Offspring = Annotated[int, typer.Option(min=1, help="New candidates an iteration.")]
Cache = Annotated[Path | None, typer.Option(help="File of known candidates: a killed search goes on.")]
TrainShare = Annotated[float, typer.Option(min=0.01, max=0.99, help="Of the questions, for the search.")]
Seed = Annotated[int, typer.Option(help="One seed, one result.")]


@app.command()
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
    from surgeon.search.run import naee_size

    size = naee_size(model, depth, max_subsets)
    total = size.subsets_per_layer
    strategy = (
        f"all {total} subsets a layer" if size.exhaustive else f"greedy with swaps ({total} subsets are too many)"
    )
    errors.print(f"NAEE over {size.n_layers} layers: {strategy}", highlight=False)
    if size.exhaustive and total > 10_000 and not yes and not as_json:
        typer.confirm("go on?", abort=True, err=True)
    task = NaeeTask(model=model.resolve(), statistics=statistics.resolve(), depth=depth, max_subsets=max_subsets)
    done = run_task(task, "naee")
    assert done.plan is not None and done.naee is not None
    losses = ", ".join(f"{loss:.4g}" for loss in done.naee.losses)
    write_plan(output, done.plan)
    show(as_json, {"target": str(output), "plan_hash": done.plan.plan_hash(), **done.naee.model_dump(mode="json")},
         f"{output}: plan {done.plan.plan_hash()[:16]}, losses {losses}")  # fmt: skip


@app.command()
def eep(
    model: Model,
    depth: Depth,
    questions: Questions,
    output: Output,
    iterations: Annotated[int, typer.Option(min=0, help="The paper has 40.")] = 40,
    offspring: Offspring = 12,
    start: Annotated[list[Path] | None, typer.Option(help="Plans to begin with; may be repeated.")] = None,
    cache: Cache = None,
    train_share: TrainShare = 0.5,
    seed: Seed = 0,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Evolve the sets of kept experts by accuracy on questions; reports the split that the search never sees.

    Example: epi surgery search eep demo-f16.gguf --depth 8 --questions arc.jsonl -o eep8.json --cache eep8.cache
    """
    from surgeon.planning.plan_file import read_plan

    task = EepTask(
        model=model.resolve(), questions=_question_files(questions), depth=depth, iterations=iterations,
        offspring=offspring, seed=seed, start=tuple(read_plan(path) for path in start or []), cache=absolute(cache),
        train_share=train_share, threads=threads,
    )  # fmt: skip
    _show_eep(task, output, as_json, "the whole model")


@app.command("eep-merge")
def eep_merge(
    model: Model,
    plan: Annotated[Path, typer.Option(help="Plan of the prune phase: where the search begins.")],
    questions: Questions,
    output: Output,
    iterations: Annotated[int, typer.Option(min=0, help="The paper has 160.")] = 160,
    offspring: Offspring = 8,
    cache: Cache = None,
    train_share: TrainShare = 0.5,
    seed: Seed = 0,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Evolve matrices that mix dropped experts into kept ones; the model must be F16 or F32, `apply` takes any.

    Example: epi surgery search eep-merge demo-f16.gguf --plan eep8.json --questions arc.jsonl -o merge8.json
    """
    from surgeon.planning.plan_file import read_plan

    task = EepMergeTask(
        model=model.resolve(), plan=read_plan(plan), questions=_question_files(questions), iterations=iterations,
        offspring=offspring, seed=seed, cache=absolute(cache), train_share=train_share, threads=threads,
    )  # fmt: skip
    _show_eep(task, output, as_json, "only pruned")


def _show_eep(task: EepTask | EepMergeTask, output: Path, as_json: bool, compared: str) -> None:
    done = run_task(task, task.task)
    plan, report = done.plan, done.eep
    assert plan is not None and report is not None
    write_plan(output, plan)
    show(as_json, {"target": str(output), "plan_hash": plan.plan_hash(), **report.model_dump(mode="json")},
         f"{output}: accuracy {report.train:.3f} on the search's questions, {report.validation:.3f} on unseen ones"
         f" ({compared}: {report.validation_base:.3f}); {report.evaluated} candidates")  # fmt: skip


@app.command()
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
    task = SkippingTask(
        model=model.resolve(), statistics=statistics.resolve(), questions=_question_files(questions), threads=threads
    )
    result = run_task(task, "skipping").skipping
    assert result is not None
    lines = [f"{row.questions}: accuracy {row.accuracy:.3f} -> {row.accuracy_skipping:.3f},"
             f" {row.share_skipped:.1%} of expert computations skipped" for row in result.tasks]  # fmt: skip
    lines.append("Stock engines compute skipped experts all the same: this saves no energy there.")
    show(as_json, result.model_dump(mode="json"), "\n".join(lines))


def _question_files(items: list[str]) -> tuple[tuple[Path, str], ...]:
    files = []
    for item in items:
        path, _, template = item.partition("=")
        template = template.replace("\\n", "\n")
        if template and "{question}" not in template:
            raise ConfigurationError("the template has no {question}", where=item)
        files.append((Path(path).resolve(), template))
    return tuple(files)
