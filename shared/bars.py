"""The bar that the commands show on stderr while something takes longer than a moment."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from shared.kernel.progress import Progress


@contextmanager
def progress_bar(what: str, console: Console | None = None) -> Iterator[Progress]:
    """Show how far `what` is; the block gets the `Progress` to tell. What else is printed goes through `console`."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False),
    )  # fmt: skip
    with Bars(*columns, console=console or Console(stderr=True), transient=True) as bars:
        row = bars.add_task(what, total=1.0, note="")
        yield lambda fraction, message: bars.update(row, completed=fraction, note=message)
