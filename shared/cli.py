"""The `epi` command: finds the commands of whichever parts are installed and loads only the one that is asked for.

Each part registers its typer apps under the entry-point group `epi.commands`; this module knows none of them.
"""

import sys
from importlib.metadata import entry_points
from typing import Any

import click
import typer
from rich.console import Console
from typer.main import get_command

from shared.errors import EpiError

GROUP = "epi.commands"


class _LazyGroup(click.Group):
    """A click group whose members are entry points, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(entry_points(group=GROUP).names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = entry_points(group=GROUP, name=cmd_name)
        for point in found:
            app: Any = point.load()
            command: click.Command = get_command(app) if isinstance(app, typer.Typer) else app
            command.name = cmd_name
            return command
        return None


@click.group(
    cls=_LazyGroup,
    help="EPI Factory: how many joules does one unit of useful intelligence cost?",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="epi-factory")
def _epi() -> None:
    pass


def main() -> None:
    """Run `epi`; an error of the lab ends in one clear message and exit code 1, Ctrl-C in exit code 130."""
    try:
        _epi(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        Console(stderr=True).print("stopped by the user")
        sys.exit(130)
    except EpiError as error:
        console = Console(stderr=True)
        console.print(f"[red]error:[/red] {error.message}", highlight=False)
        if error.where:
            console.print(f"  where: {error.where}", highlight=False, markup=False)
        if error.hint:
            console.print(f"  do:    {error.hint}", highlight=False, markup=False)
        sys.exit(1)
