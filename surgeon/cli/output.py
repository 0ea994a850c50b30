"""What all commands share: a bar for their tasks, one JSON object on stdout where a script asks for it, children."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from shared.bars import progress_bar
from surgeon.work.child import run_in_child
from surgeon.work.tasks import Done, Task

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads; not more than there are idle cores.")]
console = Console()
errors = Console(stderr=True)


def run_task(task: Task, what: str) -> Done:
    """Run a task in a child process with a progress bar; Ctrl-C kills it."""
    with progress_bar(what) as publish:
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
