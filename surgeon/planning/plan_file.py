"""Reading a plan from a file."""

from pathlib import Path

from pydantic import ValidationError

from shared.kernel.errors import ConfigurationError
from shared.kernel.records import SurgeryPlan


def read_plan(path: Path) -> SurgeryPlan:
    """Read a plan file.

    Raises:
        ConfigurationError: not there, or not a plan; the field at fault is named.
    """
    try:
        return SurgeryPlan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read the plan: {error.strerror}", where=str(path)) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "plan"
        raise ConfigurationError(f"{key}: {first['msg']}", where=str(path)) from error
