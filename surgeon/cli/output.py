"""What all commands share: a bar for their tasks, one JSON object on stdout where a script asks for it, children."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from shared.bars import progress_bar
from shared.screen import Screen, say_json
from shared.wire.surgeon_catalogue import KindInfo, MethodInfo
from surgeon.work.child import run_in_child
from surgeon.work.tasks import Done, Task

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads; not more than there are idle cores.")]
console = Screen()
errors = Screen(stderr=True)


def run_task(task: Task, what: str) -> Done:
    """Run a task in a child process with a progress bar; Ctrl-C kills it."""
    with progress_bar(what) as publish:
        return asyncio.run(run_in_child(task, publish))


def show(as_json: bool, data: dict[str, Any], text: str) -> None:
    """Print the result in the form asked for."""
    if as_json:
        say_json(data)
    else:
        console.print(text, soft_wrap=True)


def show_listing(infos: Sequence[MethodInfo | KindInfo], columns: Mapping[str, str | None], as_json: bool) -> None:
    """Print what can be asked for by name: a column's heading -> the field that it shows; None: the parameters."""
    if as_json:
        say_json({info.name: info.model_dump(mode="json") for info in infos})
        return
    table = Table(*columns)
    for info in infos:
        names = ", ".join(parameter.name for parameter in info.parameters)
        table.add_row(*(names if field is None else _cell(getattr(info, field)) for field in columns.values()))
    console.print(table)


def _cell(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else ", ".join(value) or "nothing"


def absolute(path: Path | None) -> Path | None:
    """Return the path as the child will find it."""
    return None if path is None else path.resolve()
