"""What the commands on files share: consoles, options, and a folder that must be there."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from shared.kernel.errors import ConfigurationError
from shared.screen import Screen

FolderArgument = Annotated[Path, typer.Argument(help="Folder of one campaign: OUT/<campaign>.", metavar="DIR")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

out = Screen(soft_wrap=True)
err = Screen(stderr=True, soft_wrap=True)


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
        out.print(str(path))


def dump(record: BaseModel | None) -> object:
    """Return a record as JSON values."""
    return None if record is None else record.model_dump(mode="json")
