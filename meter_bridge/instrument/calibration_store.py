"""Calibration records on disk: one numbered file a version, written once, never changed."""

from pathlib import Path

from pydantic import ValidationError

from meter_bridge.instrument.calibration import CalibrationDraft, CalibrationRecord, fit_calibration
from shared.files.atomic import write_file
from shared.kernel.clock import utc_ns
from shared.kernel.defects import first_defect
from shared.kernel.errors import ConflictError, DataError, NotFoundError
from shared.kernel.records import NodeName
from shared.kernel.regular_files import RECORDS_BYTES, read_bytes


class CalibrationStore:
    """The versions under `directory`; the newest is in force."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._records = [_read(path) for path in sorted(directory.glob("cal-*.json"))]

    @property
    def records(self) -> tuple[CalibrationRecord, ...]:
        """All versions, oldest first."""
        return tuple(self._records)

    @property
    def newest(self) -> CalibrationRecord | None:
        """The calibration in force, if there is any."""
        return self._records[-1] if self._records else None

    def get(self, calibration_id: str) -> CalibrationRecord:
        """Return one version.

        Raises:
            NotFoundError: there is none of that id.
        """
        for record in self._records:
            if record.id == calibration_id:
                return record
        known = ", ".join(record.id for record in self._records) or "none"
        raise NotFoundError("no such calibration", where=calibration_id, hint=f"known: {known}")

    def add(self, draft: CalibrationDraft, *, instrument: str, nodes: tuple[NodeName, ...]) -> CalibrationRecord:
        """Fit a draft and keep it as the next version.

        Raises:
            DataError: the draft is nonsense; nothing is kept.
            ConflictError: this version is there already; another bridge works on this folder.
        """
        version = self._records[-1].version + 1 if self._records else 1
        record = fit_calibration(draft, version=version, created_utc_ns=utc_ns(), instrument=instrument, nodes=nodes)
        path = self._directory / f"{record.id}.json"
        try:
            write_file(path, record.model_dump_json(indent=2) + "\n", overwrite=False)
        except FileExistsError as error:
            raise ConflictError("somebody else kept this version meanwhile", where=str(path)) from error
        self._records.append(record)
        return record


def _read(path: Path) -> CalibrationRecord:
    try:
        return CalibrationRecord.model_validate_json(read_bytes(path, RECORDS_BYTES))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ValidationError as error:
        raise DataError(f"damaged calibration: {first_defect(error)}", where=str(path)) from error
