"""Measured runs that wait for their evaluation, on disk, so that neither a dead bridge nor a kill loses one.

A run is kept here before its trace is asked for and forgotten when its attempt has an outcome. The trace itself is in
the bridge's database for weeks. Not here: reading the trace (`trace`), evaluating (`evaluation`).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from orchestrator.benchmarks.records import SuiteResult, WindowAnswers
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.run.records import RunInput
from shared.files.atomic import write_file
from shared.files.checked_json import dump_checked, parse_checked
from shared.kernel.errors import DataError
from shared.kernel.records import CampaignId, QuestionResult, Record
from shared.kernel.regular_files import RECORDS_BYTES, read_bytes
from shared.wire.meter_api import WindowSummary

_FILE = re.compile(r"rep-([1-9][0-9]{0,5})\.attempt-([1-9][0-9]{0,8})\.json")


class PendingEvaluation(Record):
    """Everything that an attempt measured but the power trace, and which part of the trace is its own.

    It is kept with what was answered in the score window first, and again when the suite has counted that.
    """

    schema_version: Literal[1] = 1
    run: RunInput
    """What comes with the trace is not in it yet: energy register, events, the instrument at this run's power."""
    questions: tuple[QuestionResult, ...]
    """What the accuracy is of; empty while those who score have not answered yet."""
    sample: tuple[QuestionResult, ...] = ()
    """What the score window asked, where others score."""
    uncounted: WindowAnswers | None = None
    """What was answered in the score window and is still to be counted; then it is in `counts_as`."""
    counts_as: Literal["questions", "sample"] = "questions"
    trace_start_utc_ns: int
    trace_end_utc_ns: int

    def with_counted(self, suite: SuiteResult) -> "PendingEvaluation":
        """Return what is to be evaluated when the answers are counted."""
        provenance = self.run.provenance.model_copy(update={"question_sets": suite.question_sets})
        run = self.run.model_copy(update={"provenance": provenance})
        return self.model_copy(update={"run": run, self.counts_as: suite.questions, "uncounted": None})

    def with_meter_record(self, window: WindowSummary) -> RunInput:
        """Return the run with what the meter says of the whole trace."""
        return self.run.model_copy(
            update={
                "instrument": window.instrument,
                "calibrated_utc_ns": window.instrument.calibrated_utc_ns,
                "energy_register_j": window.energy_register_j,
                "meter_events": window.events,
            }
        )


class PendingEvaluations:
    """The pending evaluations of one campaign, a file each in a folder of the orchestrator's state."""

    def __init__(self, state_dir: Path, campaign: CampaignId) -> None:
        self._folder = state_dir / "pending" / campaign

    def keep(self, pending: PendingEvaluation) -> None:
        """Write a measured run; it survives a power cut from here on.

        Raises:
            OSError: the disk does not take it.
        """
        path = self._path(pending.run.reference, pending.run.attempt)
        write_file(path, dump_checked(pending))

    def find(self, run: RunReference, attempt: int) -> PendingEvaluation | None:
        """Return what an attempt measured, None when it did not come so far.

        Raises:
            DataError: the file is damaged, or another version's.
        """
        path = self._path(run, attempt)
        if not path.exists():
            return None
        try:
            data = read_bytes(path, RECORDS_BYTES)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
        pending = parse_checked(PendingEvaluation, data, where=str(path))
        if (pending.run.reference, pending.run.attempt) != (run, attempt):
            raise DataError("the file is of another run", where=str(path))
        return pending

    def forget(self, run: RunReference, attempt: int) -> None:
        """Remove what is evaluated or cannot be."""
        self._path(run, attempt).unlink(missing_ok=True)

    def _path(self, run: RunReference, attempt: int) -> Path:
        return self._folder / run.configuration / f"rep-{run.repetition}.attempt-{attempt}.json"


def kept_runs(state_dir: Path) -> Iterator[tuple[CampaignId, RunReference, int]]:
    """Yield campaign, run and attempt of everything that is kept, whether it can be read or not."""
    for path in sorted((state_dir / "pending").glob("*/*/rep-*.attempt-*.json")):
        if (named := _FILE.fullmatch(path.name)) is not None:
            run = RunReference.of(configuration=path.parent.name, repetition=int(named[1]))
            yield path.parent.parent.name, run, int(named[2])
