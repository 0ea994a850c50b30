"""Trust on first use: the hashes of published questions when a lab used them first, and that they still are the same.

Whether they are those that were published, nobody can say here; that all campaigns of a lab ask the same, this can.
Benchmarks whose hashes this version knows need it not (`published`).
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from shared.files.atomic import write_file
from shared.kernel.clock import utc_ns
from shared.kernel.defects import first_defect
from shared.kernel.errors import DataError
from shared.kernel.records import Record, Sha256
from shared.kernel.regular_files import RECORDS_BYTES, read_bytes

log = logging.getLogger(__name__)


class FirstUseOfSplit(Record):
    """What one split of a benchmark was when it was used first."""

    docs_sha256: Sha256
    first_used_utc_ns: int


class _Remembered(Record):
    schema_version: int = 1
    splits: dict[str, FirstUseOfSplit] = Field(default_factory=dict, description="BENCHMARK/SPLIT -> its first use")


class FirstUse:
    """The file that remembers."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self, benchmark: str, hashes: Mapping[str, Sha256], folder: Path) -> None:
        """Compare the splits of a benchmark with their first use; what is used first is remembered.

        Raises:
            DataError: a split holds other questions than at its first use, or the file is damaged.
            OSError: it cannot be written.
        """
        remembered = self._read()
        first: dict[str, FirstUseOfSplit] = {}
        for split, sha256 in hashes.items():
            name = f"{benchmark}/{split}"
            known = remembered.splits.get(name)
            if known is None:
                first[name] = FirstUseOfSplit(docs_sha256=sha256, first_used_utc_ns=utc_ns())
                log.info("the questions of %s are used first: %s is what they are from now on", name, sha256)
            elif known.docs_sha256 != sha256:
                raise DataError(
                    f"the questions of {name} are others than when this lab used them first"
                    f" ({sha256[:12]}, they were {known.docs_sha256[:12]})", where=str(folder),
                    hint=f"bring the former ones back; or, if other ones are meant, remove {name} from {self._path}",
                )  # fmt: skip
        if first:
            splits = {**remembered.splits, **first}
            write_file(self._path, remembered.model_copy(update={"splits": splits}).model_dump_json(indent=2))

    def _read(self) -> _Remembered:
        try:
            return _Remembered.model_validate_json(read_bytes(self._path, RECORDS_BYTES))
        except FileNotFoundError:
            return _Remembered()
        except ValidationError as error:
            raise DataError(
                f"what remembers the first use of questions is damaged: {first_defect(error)}", where=str(self._path),
                hint="remove it: the questions are then remembered as they are now",
            ) from error  # fmt: skip
