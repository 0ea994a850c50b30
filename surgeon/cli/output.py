"""What all commands share: progress on stderr, one JSON object on stdout where a script asks for it, children."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from surgeon.work.child import run_in_child
from surgeon.work.tasks import Done, Task

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads; not more than there are idle cores.")]
console = Console()
errors = Console(stderr=True)


@contextmanager
def progress(what: str) -> Iterator[Callable[[float, str], None]]:
    """Show a bar on stderr; the block gets a function of (0..1, message)."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
               TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))  # fmt: skip
    with Progress(*columns, console=errors, transient=True) as bar:
        number = bar.add_task(what, total=1.0, note="")
        yield lambda fraction, note: bar.update(number, completed=fraction, note=note)


def run_task(task: Task, what: str) -> Done:
    """Run a task in a child process with a progress bar; Ctrl-C kills it."""
    with progress(what) as publish:
        return asyncio.run(run_in_child(task, publish))


def show(as_json: bool, data: dict[str, Any], text: str) -> None:
    """Print the result in the form asked for."""
    if as_json:
        print(json.dumps(data))
    else:
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def absolute(path: Path | None) -> Path | None:
    """Return the path as the child will find it."""
    return None if path is None else path.resolve()
