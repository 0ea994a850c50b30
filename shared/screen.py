"""The one way to the terminal: whatever commands print passes here, and nothing in it commands the terminal.

Square brackets are text, never rich's markup, and what nobody sees is written out (`shared.kernel.visible`). Style
comes from `style=` and from `rich.text.Text`.
"""

import json
from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from shared.kernel.visible import visible


class Screen(Console):
    """A rich console for text that anybody may have written."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, width=width, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **how: Any) -> Text:
        """Return text as it is shown, measured as it is shown."""
        return super().render_str(visible(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield segments; of those that are text, also of ready-made `Text`, nothing commands the terminal."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))

    def status(self, status: RenderableType, **how: Any) -> Status:
        """Return a spinner beside words, which rich would read as markup."""
        return super().status(Text(status) if isinstance(status, str) else status, **how)


def say(text: str, *, err: bool = False) -> None:
    """Print lines as they are, neither wrapped nor styled."""
    typer.echo(visible(text), err=err)


def say_json(value: Any, *, indent: int | None = None) -> None:
    """Print JSON for scripts: pure ASCII, so that nothing in it commands a terminal either."""
    typer.echo(json.dumps(value, indent=indent))
