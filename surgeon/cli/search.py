"""`epi surgery search`: a command for each search that is installed, and what NAEE's skipping would do."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperGroup

from shared.kernel.errors import ConfigurationError
from surgeon.cli.output import Json, Threads, absolute, errors, run_task, show
from surgeon.planning.plan_file import read_plan, write_plan
from surgeon.search.base import Search, SearchInputs
from surgeon.search.registry import SEARCHES, search_named
from surgeon.work.tasks import SearchTask, SkippingTask

Model = Annotated[Path, typer.Argument(help="GGUF, usually F16.")]
Depth = Annotated[int, typer.Option(min=1, help="Experts to drop in each layer.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Plan to write.")]
Statistics = Annotated[Path, typer.Option("--statistics", "-s", help="File from `epi surgery observe`.")]
Questions = Annotated[
    list[str], typer.Option("--questions", help="FILE.jsonl or FILE.jsonl=TEMPLATE with {question}; may be repeated.")
]
Plan = Annotated[Path, typer.Option(help="Plan that the search goes on from.")]
Start = Annotated[list[Path] | None, typer.Option(help="Plans to begin with; may be repeated.")]
Cache = Annotated[Path | None, typer.Option(help="File of known candidates: a killed search goes on.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a long search.")]
_BY_NEED = {"statistics": ("statistics", Statistics), "reservoir": ("statistics", Statistics),
            "questions": ("questions", Questions), "plan": ("plan", Plan), "start": ("start", Start)}  # fmt: skip


class _Searches(TyperGroup):
    """The searches of the registry, each made into a command when it is asked for, beside commands of its own."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted({*super().list_commands(ctx), *map(_command_name, SEARCHES.names())})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        name = next((name for name in SEARCHES.names() if _command_name(name) == cmd_name), None)
        if name is None:
            return super().get_command(ctx, cmd_name)
        one = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        one.command(cmd_name)(_command_of(SEARCHES.get(name)))
        return typer.main.get_command(one)


app = typer.Typer(
    cls=_Searches, help="Search for the experts to keep.", no_args_is_help=True, pretty_exceptions_enable=False,
    rich_markup_mode=None,
)  # fmt: skip


def _command_name(search: str) -> str:
    return search.replace("_", "-")


def _command_of(search: type[Search]) -> Callable[..., None]:
    """Return the command of a search: its inputs, its parameters and what all have, as arguments and options."""
    inputs: dict[str, tuple[Any, Any]] = {"model": (Model, inspect.Parameter.empty)}
    if "plan" not in search.needs:
        inputs["depth"] = (Depth, inspect.Parameter.empty)
    for needs, default in ((search.needs, inspect.Parameter.empty), (search.optional, None)):
        inputs |= {_BY_NEED[need][0]: (_BY_NEED[need][1], default) for need in needs if need in _BY_NEED}
    own = {name: _option(name, field) for name, field in search.model_fields.items()}
    common: dict[str, tuple[Any, Any]] = {
        "output": (Output, inspect.Parameter.empty), "cache": (Cache, None), "threads": (Threads, 1),
        "yes": (Yes, False), "as_json": (Json, False),
    }  # fmt: skip
    if taken := sorted(own.keys() & (inputs.keys() | common.keys())):
        raise ConfigurationError(f"a parameter cannot be called {taken[0]}", where=f"search {search.name}")

    def command(**given: Any) -> None:
        said = {name: given[name] for name, (_, default) in own.items() if given[name] != default}
        _run(search_named(search.name, said), given)

    parts = {**inputs, **own, **common}
    required = [name for name, (_, default) in parts.items() if default is inspect.Parameter.empty]
    order = [*required, *(name for name in parts if name not in required)]
    command.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=parts[name][0],
                          default=parts[name][1]) for name in order
    ])  # fmt: skip
    command.__annotations__ = {name: parts[name][0] for name in order}
    example = "" if "plan" not in search.needs else " --plan eep8.json"
    depth = " --depth 8" if "plan" not in search.needs else ""
    files = "".join({"statistics": " -s statistics.safetensors", "questions": " --questions arc.jsonl"}.get(
        _BY_NEED[need][0], "") for need in search.needs if need in _BY_NEED)  # fmt: skip
    command.__doc__ = (
        f"{(search.__doc__ or '').strip().partition(chr(10))[0]}\n\n    Example: epi surgery search"
        f" {_command_name(search.name)} demo-f16.gguf{depth}{example}{files} -o found.json\n"
    )
    return command


def _option(name: str, field: FieldInfo) -> tuple[Any, Any]:
    """Return the option that a parameter is; the search itself refuses what does not fit."""
    default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
    return Annotated[field.annotation, typer.Option(f"--{_command_name(name)}", help=field.description)], default


def _run(search: Search, given: dict[str, Any]) -> None:
    """Say how large the search is, ask before a long one, do it in a child and write the plan."""
    from shared.checkpoints.surgery import describe

    inputs = SearchInputs(
        model=given["model"].resolve(), depth=given.get("depth"),
        plan=read_plan(given["plan"]) if given.get("plan") else None,
        start=tuple(read_plan(path) for path in given.get("start") or ()), statistics=absolute(given.get("statistics")),
        questions=_question_files(given.get("questions") or []), cache=absolute(given["cache"]),
        threads=given["threads"],
    )  # fmt: skip
    size = search.check(describe(inputs.model), inputs.depth)
    errors.print(size.words)
    if size.is_long and not given["yes"] and not given["as_json"]:
        typer.confirm("go on?", abort=True, err=True)
    done = run_task(SearchTask(**dict(inputs), search=search.name, parameters=search.model_dump()), search.name)
    assert done.plan is not None
    write_plan(given["output"], done.plan)
    plan_hash = done.plan.plan_hash()
    worth = ", ".join(f"{name} {_short(value)}" for name, value in done.report.items())
    show(given["as_json"], {"target": str(given["output"]), "plan_hash": plan_hash, **done.report},
         f"{given['output']}: plan {plan_hash[:16]}, {worth}")  # fmt: skip


def _short(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@app.command()
def skipping(
    model: Model,
    statistics: Statistics,
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
