"""`epi surgery fit`: what a model, whole or cut, takes on each node, before it is made."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from shared.kernel.errors import ConfigurationError
from shared.screen import say_json
from surgeon.cli.output import Json, console, run_task

if TYPE_CHECKING:
    from shared.wire.footprint import FootprintAnswer, VariantShape

app = typer.Typer()

_GIB = 1 << 30


class LayoutName(StrEnum):
    """Layouts of the result."""

    uniform = "uniform"
    biased = "biased"


@app.command()
def fit(
    model: Annotated[Path, typer.Argument(help="Directory of safetensors, or GGUF; only headers are read.")],
    plan: Annotated[Path | None, typer.Option(help="Plan of the variant, from `epi surgery plan`.")] = None,
    keep: Annotated[
        str | None, typer.Option(help="Instead of a plan: experts each layer keeps: 64, or 64,64,60,...")
    ] = None,
    layout: Annotated[LayoutName, typer.Option(help="With --keep.")] = LayoutName.uniform,
    quantization: Annotated[str, typer.Option(help="Of the weights.")] = "Q4_K_M",
    nodes: Annotated[str, typer.Option(help="Numbers of nodes to look at.")] = "1,2,4",
    memory: Annotated[float, typer.Option(min=0.01, help="Memory of each node in GiB.")] = 16.0,
    reserved: Annotated[float, typer.Option(min=0, help="Of that what the system keeps, in GiB.")] = 0.5,
    engine: Annotated[str, typer.Option(help="llama.cpp or distributed-llama.")] = "llama.cpp",
    context: Annotated[int, typer.Option(min=64, help="Context in tokens.")] = 8192,
    sequences: Annotated[int, typer.Option(min=2, max=256, help="Sequences scored at once.")] = 32,
    experts_per_token: Annotated[int | None, typer.Option("--k", min=1, help="Active experts per token.")] = None,
    as_json: Json = False,
) -> None:
    """Say what a model takes in memory on each node, and on how few nodes it fits, before it is made.

    Example: epi surgery fit Qwen3-30B-A3B/ --keep 64 --nodes 1,2 --memory 16

    Example: epi surgery fit qwen3-f16.gguf --plan drop16.json --json
    """
    from shared.wire.footprint import FootprintAnswer, ServingShape
    from surgeon.work.tasks import FootprintTask

    counts = _numbers(nodes, "--nodes")
    servings = [
        ServingShape(
            engine=engine, memory=(int(memory * _GIB),) * n, context_tokens=context, sequences=sequences,
            experts_per_token=experts_per_token,
        )
        for n in counts
    ]  # fmt: skip
    variant = _variant(model, plan, keep, layout)
    task = FootprintTask(
        source=model.resolve(), quantization=quantization, items=tuple((variant, serving) for serving in servings)
    )
    answers: dict[int, FootprintAnswer] = dict(zip(counts, run_task(task, "fit").footprints, strict=True))
    usable = int((memory - reserved) * _GIB)
    fits = {
        n: answer.footprint is not None and max(answer.footprint.needed) <= usable for n, answer in answers.items()
    }  # fmt: skip
    fewest = min((n for n, yes in fits.items() if yes), default=None)
    if as_json:
        say_json({
            "usable_bytes": usable, "fewest": fewest,
            "nodes": {n: {**answer.model_dump(mode="json"), "fits": fits[n],
                          "needed": answer.footprint and answer.footprint.needed} for n, answer in answers.items()},
        })  # fmt: skip
        return
    _print(answers, fits)
    said = "on none of these" if fewest is None else f"on {fewest} node{'s' if fewest > 1 else ''}"
    console.print(f"fits {said} of {memory:g} GiB with {reserved:g} GiB kept for the system")


def _print(answers: "dict[int, FootprintAnswer]", fits: dict[int, bool]) -> None:
    table = Table("nodes", "node", "weights", "cache", "buffers", "loading", "processes", "needed GiB", "fits")
    for n, answer in answers.items():
        if answer.footprint is None:
            table.add_row(str(n), "", "", "", "", "", "", answer.problem, "no")
            continue
        for number, node in enumerate(answer.footprint.nodes):
            sizes = (node.weight_bytes, node.cache, node.compute + node.output + node.output_growth, node.loading,
                     node.processes, node.needed)  # fmt: skip
            table.add_row(
                str(n) if not number else "", "root" if not number else str(number + 1),
                *(f"{size / _GIB:.3f}" for size in sizes), ("yes" if fits[n] else "no") if not number else "",
            )  # fmt: skip
    console.print(table)


def _variant(model: Path, plan: Path | None, keep: str | None, layout: LayoutName) -> "VariantShape":
    from shared.wire.footprint import VariantShape
    from surgeon.planning.plan_file import read_plan

    if plan is not None and keep is not None:
        raise ConfigurationError("give either --plan or --keep")
    if plan is not None:
        found = read_plan(plan)
        return VariantShape(kept=tuple(map(len, found.kept)), layout=found.layout)
    if keep is None:
        return VariantShape(layout=layout.value)
    numbers = _numbers(keep, "--keep")
    return VariantShape(kept=numbers * _layers(model) if len(numbers) == 1 else numbers, layout=layout.value)


def _layers(model: Path) -> int:
    from shared.checkpoints import surgery

    return surgery.describe(model).n_layers


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise ConfigurationError(f"{option} is a list of numbers, not {text!r}")
    return numbers
