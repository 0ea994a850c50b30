"""Records in JSON files whose content carries its hash: a bit that flips on the disk is found, never believed.

The hash is the first key of the object, so the file is still JSON for any other reader. For what the lab keeps for
itself; result files can be calculated anew, and artifacts are named by their hash. Files of before have none.
"""

import hashlib
import json
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from shared.kernel.defects import first_defect
from shared.kernel.errors import DataError
from shared.kernel.records import Record, canonical_bytes

KEY: Final = "content_sha256"
R = TypeVar("R", bound=Record)


def dump_checked(record: Record) -> str:
    """Return a record as JSON with the hash of all that is in it."""
    values = json.loads(record.model_dump_json())
    return json.dumps({KEY: _hash(values), **values}, separators=(",", ":"), ensure_ascii=False)


def parse_checked(model: type[R], data: bytes, where: str = "") -> R:
    """Read what `dump_checked` wrote.

    Raises:
        DataError: it is no JSON, not what was written, or does not fit the model.
    """
    try:
        values = json.loads(data)
    except ValueError as error:
        raise DataError(f"not JSON: {error}", where=where) from error
    if isinstance(values, dict) and KEY in values and values.pop(KEY) != _hash(values):
        raise DataError("the content is not as it was written", where=where)
    try:
        return model.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise DataError(str(first_defect(error)), where=where) from error


def _hash(values: Any) -> str:
    return hashlib.sha256(canonical_bytes(values)).hexdigest()
