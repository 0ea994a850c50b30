"""Reading a run's power trace from the bridge to a file: piece by piece, however long the run was.

A piece that cannot be read is asked for again with growing pauses, as long as the spec lets a lab be away; whatever the
bridge answers instead is a fault of the infrastructure, since the run itself is measured and kept (`pending`).

Not here: what the trace means (`evaluation`).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from orchestrator.domain.campaign.run_reference import RunReference
from shared.files.trace_csv import TraceCsvWriter
from shared.kernel.clock import NS_PER_S, utc_ns
from shared.kernel.errors import BugError, DataError, EpiError, InfrastructureError
from shared.wire.client import AgentClient
from shared.wire.meter_api import WindowSummary
from shared.wire.meter_client import sample_pieces

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_MOST_BEGINNINGS = 10


class TraceUnreadError(InfrastructureError):
    """A measured run's trace cannot be read now; the run is kept and evaluated when it can."""


class _BeginAgainError(Exception):
    """The pieces read so far are of no use any more; `why` they are not."""

    def __init__(self, why: EpiError) -> None:
        super().__init__(why)
        self.why = why


class TraceReading:
    """Reads the traces of one campaign; `give_up_s` is how long the bridge may be away at a time."""

    def __init__(
        self,
        meter: AgentClient,
        give_up_s: float,
        check_stop_requested: Callable[[], Awaitable[None]],
        publish: Callable[[str], None],
    ) -> None:
        self._meter = meter
        self._give_up_s = give_up_s
        self._check_stop_requested = check_stop_requested
        self._publish = publish

    async def to_file(self, run: RunReference, start_utc_ns: int, end_utc_ns: int, file: Path) -> WindowSummary:
        """Write the calibrated trace of [start, end) to a file and return what the meter says of the whole.

        Raises:
            TraceUnreadError: the bridge was away too long.
            OSError: the disk does not take it.
            Exception: whatever `check_stop_requested` raises while the bridge is away.
        """
        await asyncio.sleep(max(0.0, (end_utc_ns - utc_ns()) / NS_PER_S))
        trouble = _Trouble(run, self._give_up_s, self._check_stop_requested, self._publish)
        for beginning in range(1, _MOST_BEGINNINGS + 1):
            try:
                return await self._read(start_utc_ns, end_utc_ns, file, trouble)
            except _BeginAgainError as again:
                if beginning == _MOST_BEGINNINGS:
                    raise _unread(run, again.why) from again
        raise BugError("a trace is read at least once", where=run.format())

    async def _read(self, start_utc_ns: int, end_utc_ns: int, file: Path, trouble: "_Trouble") -> WindowSummary:
        window: WindowSummary | None = None
        with file.open("wb") as out:
            writer = TraceCsvWriter(out)
            try:
                async for piece in sample_pieces(self._meter, start_utc_ns, end_utc_ns, on_trouble=trouble.with_piece):
                    await asyncio.to_thread(writer.add, piece.utc_ns, piece.power_w)
                    trouble.is_over()
                    window = piece.window
            except TraceUnreadError:
                raise
            except (InfrastructureError, DataError) as error:  # the pieces do not fit one another
                await trouble.wait(error)
                raise _BeginAgainError(error) from error
        if window is None:
            raise BugError("a trace ended without its summary", where=str(file))
        return window


class _Trouble:
    """Waits between tries at a piece, and gives up when none was read for too long."""

    def __init__(
        self,
        run: RunReference,
        give_up_s: float,
        check_stop_requested: Callable[[], Awaitable[None]],
        publish: Callable[[str], None],
    ) -> None:
        self._run = run
        self._give_up_s = give_up_s
        self._check_stop_requested = check_stop_requested
        self._publish = publish
        self._since_s: float | None = None
        self._pause_s = _FIRST_PAUSE_S

    def is_over(self) -> None:
        """Take note that a piece was read."""
        self._since_s, self._pause_s = None, _FIRST_PAUSE_S

    async def with_piece(self, error: EpiError) -> None:
        """Return when the same piece is to be asked for again."""
        await self.wait(error)
        if error.where == "cursor":  # the bridge does not know what it gave before: another version, other channels
            raise _BeginAgainError(error)

    async def wait(self, error: EpiError) -> None:
        """Wait a little.

        Raises:
            TraceUnreadError: it was waited long enough.
        """
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s = now_s
            log.warning("the trace of %s cannot be read now: %s", self._run, error)
        if now_s - self._since_s > self._give_up_s:
            raise _unread(self._run, error) from error
        self._publish(f"waiting for the trace of {self._run}: {error}")
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        await self._check_stop_requested()


def _unread(run: RunReference, why: EpiError) -> TraceUnreadError:
    return TraceUnreadError(
        f"{run} is measured, but its trace cannot be read from the meter bridge: {why.message}", where=why.where,
        hint="mend it, then `epi campaign resume`: the run is evaluated then",
    )  # fmt: skip
