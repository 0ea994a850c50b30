"""The bar that the commands show on stderr while something takes longer than a moment."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from shared.kernel.progress import Progress
from shared.kernel.visible import visible_line
from shared.screen import Screen


@contextmanager
def progress_bar(what: str, console: Screen | None = None) -> Iterator[Progress]:
    """Show how far `what` is; the block gets the `Progress` to tell. What else is printed goes through `console`."""
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False),
    )  # fmt: skip
    with Bars(*columns, console=console or Screen(stderr=True), transient=True) as bars:
        row = bars.add_task(visible_line(what), total=1.0, note="")
        yield lambda fraction, message: bars.update(row, completed=fraction, note=visible_line(message))
