"""The samples of a window in the order of straight time, page by page: bounded memory, however long the window is.

Straight time is UTC under the first anchor that the sample's boot has in the window, so that a step of the host's
clock bends no trace. What the ingest promises is used here: a sample's UTC is its monotonic time plus its anchor's
offset, and neither anchors nor ids go back from one sample to the next. So an anchor is a range of ids, found by
bisection.

Synchronous, with a connection of its own for each use: it is called in threads. Not here: calibration, records of the
API (`sample_pieces`).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from meter_bridge.trace.reader import summed_from_id
from meter_bridge.trace.records import sample_sum
from meter_bridge.trace.store import CURE, NAME
from shared.files.database import explained
from shared.files.row_sums import RowDamagedError
from shared.kernel.clock import NS_PER_S

_DISORDER_NS = 3600 * NS_PER_S
"""Within one anchor UTC follows the ids but for seconds, where a new stream begins; this is far beyond it."""
_SELECT = (
    "SELECT utc_ns, id, stream_id, power_w, register_wh, row_sum FROM sample INDEXED BY sample_by_time"
    " WHERE utc_ns >= ? AND utc_ns <= ? AND id >= ? AND id < ? AND (utc_ns > ? OR id > ?) ORDER BY utc_ns, id LIMIT ?"
)
_EDGE = (
    "SELECT utc_ns FROM sample INDEXED BY sample_by_time"
    " WHERE utc_ns >= ? AND utc_ns < ? AND id >= ? AND id < ? ORDER BY utc_ns {} LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class StraightSample:
    """A stored sample: straight time, id, and power and register as they are packed."""

    straight_ns: int
    id: int
    stream_id: int
    power: bytes
    register: bytes | None
    is_sound: bool
    """False when the disk gives another sample back than was written."""


@dataclass(frozen=True, slots=True)
class _Span:
    """The samples of one anchor in the window: ids [first_id, end_id), UTC first to last; straight is UTC + shift."""

    first_id: int
    end_id: int
    first_utc_ns: int
    last_utc_ns: int
    shift_ns: int


@dataclass(frozen=True, slots=True)
class StraightWindow:
    """What of [start, end) was stored when it was first asked for, up to `last_id`; spans by their straight start."""

    last_id: int
    spans: tuple[_Span, ...]


@contextmanager
def read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the trace database for reading, beside its writer; closed at the end.

    Raises:
        DataError: the file is damaged.
        StorageError: the disk cannot be read.
    """
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        db.execute("PRAGMA busy_timeout = 5000")
        yield db
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if (known := explained(error, path, name=NAME, cure=CURE, done="read")) is None:
            raise
        raise known from error
    finally:
        db.close()


def newest_id(db: sqlite3.Connection) -> int:
    """Return the id of the newest sample; 0 without any."""
    return int(db.execute("SELECT coalesce(max(id), 0) FROM sample").fetchone()[0])


def straight_window(db: sqlite3.Connection, start_utc_ns: int, end_utc_ns: int, last_id: int) -> StraightWindow:
    """Find the anchors of [start, end) among the samples up to `last_id`, in some milliseconds."""
    first_offset: dict[str, int] = {}
    spans: list[_Span] = []
    for anchor_id, first_id, end_id in _anchor_ranges(db, last_id):
        edges = db.execute(
            "SELECT (SELECT utc_ns FROM sample WHERE id >= ? ORDER BY id LIMIT 1),"
            " (SELECT utc_ns FROM sample WHERE id < ? ORDER BY id DESC LIMIT 1)",
            (first_id, end_id),
        ).fetchone()
        if edges[0] - _DISORDER_NS >= end_utc_ns or edges[1] + _DISORDER_NS < start_utc_ns:
            continue
        window = (start_utc_ns, end_utc_ns, first_id, end_id)
        first = db.execute(_EDGE.format("ASC"), window).fetchone()
        if first is None:
            continue
        last = db.execute(_EDGE.format("DESC"), window).fetchone()
        anchor = db.execute("SELECT boot_id, utc_minus_mono_ns FROM anchor WHERE id = ?", (anchor_id,)).fetchone()
        if anchor is None:
            raise RowDamagedError(f"samples from id {first_id} on name anchor {anchor_id}, which is not there")
        boot, offset = anchor
        shift = first_offset.setdefault(boot, offset) - offset
        spans.append(_Span(first_id, end_id, first[0], last[0], shift))
    return StraightWindow(last_id, tuple(sorted(spans, key=lambda span: span.first_utc_ns + span.shift_ns)))


def straight_page(
    db: sqlite3.Connection, window: StraightWindow, after: tuple[int, int], limit: int
) -> list[StraightSample]:
    """Return the next samples behind `after`, a straight time and an id, at most `limit`."""
    found: list[StraightSample] = []
    summed_from = summed_from_id(db)
    for span in window.spans:
        if len(found) == limit and span.first_utc_ns + span.shift_ns > found[-1].straight_ns:
            break
        behind_utc_ns = after[0] - span.shift_ns
        if behind_utc_ns > span.last_utc_ns:
            continue
        from_utc_ns = max(behind_utc_ns, span.first_utc_ns)
        values = (from_utc_ns, span.last_utc_ns, span.first_id, span.end_id, behind_utc_ns, after[1], limit)
        rows = db.execute(_SELECT, values)
        for utc_ns, sample_id, stream_id, power, register, written in rows:
            is_sound = sample_id < summed_from or written == sample_sum(utc_ns, stream_id, power, register)
            found.append(
                StraightSample(utc_ns + span.shift_ns, sample_id, stream_id, power, register, is_sound)
            )  # fmt: skip
        found.sort(key=lambda sample: (sample.straight_ns, sample.id))
        del found[limit:]
    return found


def _anchor_ranges(db: sqlite3.Connection, last_id: int) -> Iterator[tuple[int, int, int]]:
    """Yield (anchor id, first id, id behind the last) of each anchor with samples, in the order of their arrival."""
    row = db.execute("SELECT id, anchor_id FROM sample ORDER BY id LIMIT 1").fetchone()
    while row is not None and row[0] <= last_id:
        first_id, anchor_id = row
        low, high = first_id + 1, last_id + 1
        while low < high:
            middle = (low + high) // 2
            at = db.execute("SELECT id, anchor_id FROM sample WHERE id >= ? ORDER BY id LIMIT 1", (middle,)).fetchone()
            if at is None or at[0] > last_id or at[1] != anchor_id:
                high = middle
            else:
                low = at[0] + 1
        yield anchor_id, first_id, low
        row = db.execute("SELECT id, anchor_id FROM sample WHERE id >= ? ORDER BY id LIMIT 1", (low,)).fetchone()
