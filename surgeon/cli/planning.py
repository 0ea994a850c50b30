"""The commands from text to plan: observe, merge, methods, rank, plan."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from shared.kernel.errors import ConfigurationError
from shared.kernel.records import LayerGroup
from shared.screen import say_json
from shared.wire.surgeon_jobs import PlanOptions
from surgeon.cli.output import Json, Threads, absolute, console, run_task, show, show_listing

app = typer.Typer()

Statistics = Annotated[Path | None, typer.Option("--statistics", "-s", help="File from `epi surgery observe`.")]
Model = Annotated[
    Path | None, typer.Option("--model", "-m", help="GGUF; for a method that reads weights, or without statistics.")
]
Method = Annotated[str, typer.Option(help="See `epi surgery methods`.")]
Weights = Annotated[
    list[str] | None, typer.Option("--domain", help="NAME=WEIGHT: blend domains per token; may be repeated.")
]
Seed = Annotated[int, typer.Option(help="Of methods that draw lots.")]
Parameters = Annotated[
    list[str] | None, typer.Option("--parameter", help="NAME=VALUE of the method's own; may be repeated.")
]


class LayoutName(StrEnum):
    """Layouts of the result."""

    uniform = "uniform"
    biased = "biased"


class Budget(StrEnum):
    """Ways to share out what is kept."""

    uniform = "uniform"
    bisect = "bisect"


@app.command()
def observe(
    model: Annotated[Path, typer.Argument(help="GGUF, usually F16.")],
    texts: Annotated[list[Path], typer.Argument(help="UTF-8 text files; each is a domain named by its stem.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Statistics file to write.")],
    window: Annotated[int, typer.Option(min=8, help="Tokens evaluated at once.")] = 512,
    threads: Threads = 1,
    columns: Annotated[bool, typer.Option(help="Also sums of squares per input column (importance matrix).")] = False,
    reservoir: Annotated[int, typer.Option(min=0, help="Block inputs to keep per layer (NAEE).")] = 0,
    shard: Annotated[str, typer.Option(help="I/N: only every N-th window from I, to share the work.")] = "0/1",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="At most so many tokens in all.")] = None,
    resume: Annotated[Path | None, typer.Option(help="File to save to now and then, and to go on from.")] = None,
    as_json: Json = False,
) -> None:
    """Collect expert statistics from the serving engine in one pass over calibration text.

    Example: epi surgery observe qwen3-f16.gguf facts.txt code.txt -o statistics.safetensors --threads 8
    """
    from surgeon.work.tasks import ObserveTask

    try:
        i, n = (int(part) for part in shard.split("/"))
    except ValueError:
        raise ConfigurationError(f"--shard is I/N, not {shard!r}") from None
    if not 0 <= i < n:
        raise ConfigurationError(f"shard {i} of {n} does not exist", hint="I runs from 0 to N-1")
    task = ObserveTask(
        model=model.resolve(), texts=tuple(path.resolve() for path in texts), target=output.resolve(),
        window_tokens=window, threads=threads, columns=columns, reservoir=reservoir, shard=(i, n),
        max_tokens=max_tokens, resume=absolute(resume),
    )  # fmt: skip
    done = run_task(task, "observe")
    show(as_json, {"target": str(output), "n_tokens": done.n_tokens}, f"{output}: {done.n_tokens} tokens")


@app.command()
def merge(
    files: Annotated[list[Path], typer.Argument(help="Statistics of disjoint shards of one corpus.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Statistics file to write.")],
    as_json: Json = False,
) -> None:
    """Add statistics files; the result is exactly that of one pass.

    Example: epi surgery merge shard0.st shard1.st -o statistics.safetensors
    """
    from surgeon.observation import statistics

    total = statistics.merge(statistics.load(path) for path in files)
    statistics.save(total, output)
    done = len(total.provenance.windows)
    show(as_json, {"target": str(output), "n_tokens": total.n_tokens, "windows": done,
                   "windows_of_corpus": total.provenance.n_windows},
         f"{output}: {total.n_tokens} tokens, {done} of {total.provenance.n_windows} windows")  # fmt: skip


@app.command()
def methods(as_json: Json = False) -> None:
    """List rankings and searches: what each needs, its parameters and its source.

    Example: epi surgery methods
    """
    from surgeon.work.named import method_infos

    columns = {"method": "name", "kind": "kind", "needs": "needs", "parameters": None, "source": "source"}
    show_listing(method_infos(), columns, as_json)


def _parameters(items: list[str] | None) -> dict[str, str | int | float | bool]:
    """Read NAME=VALUE; a value that is JSON is that value, any other a text."""
    found: dict[str, str | int | float | bool] = {}
    for item in items or []:
        name, equals, text = item.partition("=")
        if not equals:
            raise ConfigurationError(f"--parameter is NAME=VALUE, not {item!r}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found[name] = value if isinstance(value, str | int | float | bool) else text
    return found


def _blend(weights: list[str] | None) -> dict[str, float]:
    blend: dict[str, float] = {}
    for item in weights or []:
        name, _, value = item.partition("=")
        try:
            blend[name] = float(value)
        except ValueError:
            raise ConfigurationError(f"--domain is NAME=WEIGHT, not {item!r}") from None
    return blend


@app.command()
def rank(
    method: Method = "reap",
    statistics: Statistics = None,
    model: Model = None,
    domain: Weights = None,
    seed: Seed = 0,
    parameter: Parameters = None,
    as_json: Json = False,
) -> None:
    """Print how much each expert matters, layer by layer, the least important first.

    Example: epi surgery rank -s statistics.safetensors --method reap --domain facts=1 --domain code=2
    """
    from surgeon.planning.plan_making import ranking_inputs, saliency_of
    from surgeon.rankings.registry import ranking_named

    ranking = ranking_named(method, _parameters(parameter), seed=seed)
    values = saliency_of(ranking, ranking_inputs(statistics, model, _blend(domain)))
    if as_json:
        say_json({"method": method, "saliency": values.tolist()})
        return
    table = Table("layer", "experts, least important first (saliency)")
    for layer, row in enumerate(values):
        table.add_row(str(layer), "  ".join(f"{expert} ({row[expert]:.3g})" for expert in row.argsort(kind="stable")))
    console.print(table)


@app.command()
def plan(
    output: Annotated[Path, typer.Option("--output", "-o", help="Plan to write.")],
    depth: Annotated[int | None, typer.Option(min=0, help="Experts to drop in each layer of the group.")] = None,
    keep: Annotated[str | None, typer.Option(help="Instead of a depth: experts each layer keeps, 12,12,10,9.")] = None,
    method: Method = "reap",
    statistics: Statistics = None,
    model: Model = None,
    group: Annotated[str, typer.Option(help="all, early, late, or layer numbers: 0,1,5.")] = "all",
    layout: Annotated[LayoutName, typer.Option(help="uniform: removed, biased: forbidden.")] = LayoutName.uniform,
    budget: Annotated[Budget, typer.Option(help="bisect: layers keep the same share of saliency.")] = Budget.uniform,
    fewest: Annotated[int, typer.Option(min=1, help="With bisect: the fewest experts a layer keeps.")] = 1,
    protect_super: Annotated[bool, typer.Option(help="Never drop experts with outstanding outputs.")] = False,
    experts_per_token: Annotated[int | None, typer.Option("--k", min=1, help="Active experts per token.")] = None,
    domain: Weights = None,
    seed: Seed = 0,
    parameter: Parameters = None,
    as_json: Json = False,
) -> None:
    """Choose the experts each layer keeps and write the plan.

    Example: epi surgery plan -s statistics.safetensors --method reap --depth 16 -o drop16.json

    Example: epi surgery plan -s statistics.safetensors --depth 8 --group late --layout biased -o late8.json

    Example: epi surgery plan -s statistics.safetensors --keep 16,14,12,12 --layout biased -o list.json
    """
    from shared.files.durability import hash_file
    from surgeon.planning.plan_file import write_plan
    from surgeon.planning.plan_making import make_plan, ranking_inputs

    if (depth is None) == (keep is None):
        raise ConfigurationError("give either --depth or --keep")
    choice = PlanOptions(
        method=method, depth=depth, keep=None if keep is None else _numbers(keep, "--keep"), group=_group(group),
        layout=layout.value, budget=budget.value, fewest=fewest, protect_super=protect_super,
        experts_per_token=experts_per_token, domain_weights=_blend(domain), seed=seed,
        parameters=_parameters(parameter),
    )  # fmt: skip
    inputs = ranking_inputs(statistics, model, choice.domain_weights)
    found = inputs.statistics
    result = make_plan(
        choice, inputs, statistics_sha256=hash_file(statistics) if statistics else None,
        base_sha256=found.provenance.model_sha256 if found else (hash_file(model) if model else None),
    )  # fmt: skip
    write_plan(output, result)
    dropped = sum(len(ids) for ids in result.dropped)
    show(as_json, {"target": str(output), "plan_hash": result.plan_hash(), "dropped": dropped,
                   "kept": [len(ids) for ids in result.kept]},
         f"{output}: {dropped} experts dropped, plan {result.plan_hash()[:16]}")  # fmt: skip


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigurationError(f"{option} is a list of numbers, not {text!r}") from None


def _group(text: str) -> LayerGroup | tuple[int, ...]:
    named: dict[str, LayerGroup] = {"all": "all", "early": "early", "late": "late"}
    return named[text] if text in named else _numbers(text, "--group, if not all, early or late,")
