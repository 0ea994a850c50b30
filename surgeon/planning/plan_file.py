"""Plans and lists of surgeries in files."""

import json
from pathlib import Path

from pydantic import ValidationError

from shared.files.atomic import write_file
from shared.kernel.defects import first_defect
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import SurgeryPlan, canonical_json
from shared.kernel.regular_files import RECORDS_BYTES, read_bytes
from surgeon.kinds.base import Surgery
from surgeon.kinds.registry import read_list
from surgeon.kinds.sequence import surgeries_of


def read_plan(path: Path) -> SurgeryPlan:
    """Read a plan file.

    Raises:
        ConfigurationError: not there, or not a plan; the field at fault is named.
    """
    try:
        return SurgeryPlan.model_validate_json(read_bytes(path, RECORDS_BYTES))
    except OSError as error:
        raise ConfigurationError(f"cannot read the plan: {error.strerror}", where=str(path)) from error
    except ValidationError as error:
        raise ConfigurationError(f"not a plan: {first_defect(error)}", where=str(path)) from error


def read_surgeries(path: Path) -> tuple[Surgery, ...]:
    """Read a list of surgeries, or a plan as the surgeries that it holds.

    Raises:
        ConfigurationError: not there, or neither; the surgery and the field at fault are named.
    """
    try:
        found = json.loads(read_bytes(path, RECORDS_BYTES))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        return surgeries_of(read_plan(path))
    return read_list(found, f"{path}: surgery")


def write_plan(path: Path, plan: SurgeryPlan) -> None:
    """Write a plan file, whole or not at all; a pipe or terminal is written to."""
    data = canonical_json(plan) + b"\n"
    if path.exists() and not path.is_file():
        path.write_bytes(data)
    else:
        write_file(path, data)
