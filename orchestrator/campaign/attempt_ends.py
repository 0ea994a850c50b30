"""How attempts end in the journal, with the reason as it was, also when the journal's disk is full and we are killed.

While the journal takes nothing, the end is noted in a file whose room is reserved; the next orchestrator finds it
there, instead of guessing that its predecessor's death was the reason. Not here: the reasons (`run_loop`, `evaluator`).
"""

from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.states import AttemptOutcome
from orchestrator.store.journal import Journal
from shared.files.reserved_note import ReservedNote
from shared.kernel.errors import StorageError
from shared.kernel.records import CampaignId, Record

_LONGEST_REASON = 2000


class AttemptEnd(Record):
    """How one attempt ended."""

    campaign: CampaignId
    run: str
    attempt: int
    outcome: AttemptOutcome
    reason: str = Field(default="", max_length=_LONGEST_REASON)
    fault: str = ""


_NOTED = TypeAdapter(tuple[AttemptEnd, ...])


class AttemptEnds:
    """Ends the attempts of one campaign."""

    def __init__(self, journal: Journal, campaign: CampaignId, state_dir: Path) -> None:
        """`journal` is a patient one: it waits until the disk takes what is written."""
        self._journal = journal
        self._campaign = campaign
        self._note = ReservedNote(state_dir / "attempt-ends")

    def reserve(self) -> None:
        """Take the room of the note while there is some.

        Raises:
            StorageError: the disk is full.
        """
        self._note.reserve()

    async def end(
        self, run: RunReference, number: int, outcome: AttemptOutcome, *, reason: str = "", fault: str = "",
        wait: bool = True,
    ) -> None:  # fmt: skip
        """Close an attempt; while the journal's disk is full the end is noted, and waited for if `wait`."""
        try:
            await self._journal.strict.end_attempt(
                self._campaign, run, number, outcome, reason=reason, fault=fault
            )  # fmt: skip
        except StorageError:
            end = AttemptEnd(
                campaign=self._campaign, run=run.format(), attempt=number, outcome=outcome,
                reason=reason[:_LONGEST_REASON], fault=fault,
            )  # fmt: skip
            self._note.write(_NOTED.dump_json((*self._noted(), end)).decode())
            if wait:
                await self._journal.end_attempt(self._campaign, run, number, outcome, reason=reason, fault=fault)
                self.forget(run, number)

    def noted(self, run: RunReference, number: int) -> AttemptEnd | None:
        """Return how an attempt had ended that the journal has open."""
        key = (self._campaign, run.format(), number)
        return next((end for end in self._noted() if (end.campaign, end.run, end.attempt) == key), None)

    def forget(self, run: RunReference, number: int) -> None:
        """Take away the note of an attempt that has its outcome."""
        key, noted = (self._campaign, run.format(), number), self._noted()
        left = tuple(end for end in noted if (end.campaign, end.run, end.attempt) != key)
        if left != noted:
            self._note.write(_NOTED.dump_json(left).decode())

    def _noted(self) -> tuple[AttemptEnd, ...]:
        try:
            return _NOTED.validate_json(self._note.read() or "[]")
        except ValidationError:
            return ()
