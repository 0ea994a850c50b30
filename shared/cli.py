"""The `epi` command: finds the commands of whichever parts are installed and loads only the one that is asked for.

Each part registers its typer apps under the entry-point group `epi.commands`; this module knows none of them.
"""

import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from shared.files.disk import storage_error
from shared.kernel.build import software_build
from shared.kernel.errors import ConfigurationError, EpiError
from shared.kernel.visible import visible_line
from shared.screen import Screen, say

GROUP = "epi.commands"
FORMER_GROUP = "epi.former_commands"
"""Commands that moved: found, not listed."""


class _LazyGroup(TyperGroup):
    """A command group whose members are entry points, imported on use."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(entry_points(group=GROUP).names)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        for point in (*entry_points(group=GROUP, name=cmd_name), *entry_points(group=FORMER_GROUP, name=cmd_name)):
            try:
                command: Any = typer.main.get_command(point.load())
            except ImportError as error:
                command = typer.main.get_command(_missing(point.module.split(".")[0], error))
            command.name = cmd_name
            return command
        return None


def _missing(part: str, error: ImportError) -> typer.Typer:
    """Return a stand-in for the commands of a part whose packages are not installed on this machine."""
    missing = typer.Typer(help=f"(not installed here: {error.name})")
    extra = {"meter_bridge": "meter", "node_agent": "node"}.get(part, part)

    @missing.callback(invoke_without_command=True, context_settings={"ignore_unknown_options": True})
    def _run(_arguments: Annotated[list[str] | None, typer.Argument()] = None) -> None:
        raise ConfigurationError(
            f"this command needs a package that is not installed: {error}", where=part,
            hint=f"pip install 'epi-factory[{extra}]'",
        )  # fmt: skip

    return missing


app = typer.Typer(
    cls=_LazyGroup,
    help="EPI Factory: how many joules does one unit of useful intelligence cost?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"epi {software_build()}")
        raise typer.Exit


@app.callback()
def _epi(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and the build.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run `epi`; an error of the lab ends in one clear message and exit code 1."""
    try:
        app()
    except EpiError as error:
        _end(error)
    except OSError as error:
        named = error.filename if isinstance(error.filename, str) else ""
        if (of_the_disk := storage_error(error, Path(named).absolute())) is None:
            raise
        _end(of_the_disk)


def _end(error: EpiError) -> NoReturn:
    screen = Screen(stderr=True, soft_wrap=True)
    screen.print("error:", style="red", end=" ")
    screen.print(f"{error.code}: {_indented(error.message)}")
    if error.where:
        screen.print(f"  where: {visible_line(error.where)}")
    if error.hint:
        screen.print(f"  do:    {_indented(error.hint)}")
    sys.exit(1)


def _indented(text: str) -> str:
    """Return text of several lines so that none of them can pass for a line of ours."""
    return text.replace("\n", "\n         ")


if __name__ == "__main__":
    main()
