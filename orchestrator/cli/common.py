"""What the commands on files share: consoles, options, and a folder that must be there."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Console

from shared.kernel.errors import ConfigurationError

FolderArgument = Annotated[Path, typer.Argument(help="Folder of one campaign: OUT/<campaign>.", metavar="DIR")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def must_exist(folder: Path) -> None:
    """Refuse a folder that is not there.

    Raises:
        ConfigurationError: no such folder.
    """
    if not folder.is_dir():
        raise ConfigurationError("no such folder", where=str(folder), hint="give OUT/<campaign>")


def print_paths(paths: tuple[Path, ...]) -> None:
    """Print what was written, a path a line."""
    for path in paths:
        out.print(str(path), markup=False)


def dump(record: BaseModel | None) -> object:
    """Return a record as JSON values."""
    return None if record is None else record.model_dump(mode="json")
