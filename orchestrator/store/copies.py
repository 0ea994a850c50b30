"""Verified copies of the journal beside it: made whole, checked whole, few, and bounded in what they cost the disk.

A copy is made through SQLite's backup interface while the journal is in use, as one file, and keeps its name only when
all of it is sound: a journal that is damaged makes no copy, and those made before stay. Not here: when one is made
(`orchestrator.campaign.safekeeping`), and what is done with one (`orchestrator.campaign.restoring`).
"""

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from orchestrator.store.tables import CURE, NAME, SUMMED
from shared.files.atomic import atomic_write
from shared.files.database import explained
from shared.files.sqlite import Check
from shared.files.wal import lost_in_log
from shared.kernel.clock import NS_PER_S
from shared.kernel.errors import DataError

KEPT: Final = 3
SHORTEST_PAUSE_S: Final = 60.0
BYTES_PER_S: Final = 20_000
"""The most that copies write in the long run: a journal of 40 MB is copied every 33 minutes, 1.7 GB a day."""
CHECK: Final = Check(SUMMED, indexes=True)
_NAME = re.compile(r"journal-(\d{8}T\d{6})\.(\d{9})Z\.sqlite\Z")


@dataclass(frozen=True)
class JournalCopy:
    """One copy and when it was made."""

    path: Path
    utc_ns: int

    @property
    def when(self) -> str:
        """The time, for people."""
        return datetime.fromtimestamp(self.utc_ns // NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class JournalCopies:
    """The copies of one journal, in a folder beside it."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.folder = journal.with_name("journal-copies")

    def newest_first(self) -> list[JournalCopy]:
        """Return all copies."""
        if not self.folder.is_dir():
            return []
        found = [JournalCopy(path, at) for path in self.folder.iterdir() if (at := _time_of(path)) is not None]
        return sorted(found, key=lambda copy: copy.utc_ns, reverse=True)

    def is_due(self, now_utc_ns: int, since_utc_ns: int = 0) -> bool:
        """Tell whether it is time for another copy.

        Args:
            now_utc_ns: now.
            since_utc_ns: where no copy is newer than this, one is due in any case.
        """
        copies = self.newest_first()
        if not copies or copies[0].utc_ns < since_utc_ns:
            return True
        pause_s = max(SHORTEST_PAUSE_S, self.journal.stat().st_size / BYTES_PER_S)
        age_s = (now_utc_ns - copies[0].utc_ns) / NS_PER_S
        return age_s >= pause_s or age_s < 0

    def make(self, now_utc_ns: int) -> JournalCopy:
        """Make a copy, check it, and remove the oldest beyond `KEPT`.

        Raises:
            DataError: the journal is damaged; the copies made before are kept.
            StorageError: the disk does not take it.
        """
        self.folder.mkdir(exist_ok=True)
        moment = datetime.fromtimestamp(now_utc_ns // NS_PER_S, UTC).strftime("%Y%m%dT%H%M%S")
        copy = JournalCopy(self.folder / f"journal-{moment}.{now_utc_ns % NS_PER_S:09d}Z.sqlite", now_utc_ns)
        with atomic_write(copy.path) as beside:
            try:
                found = _copied(self.journal, beside)
            except (sqlite3.Error, UnicodeDecodeError) as error:
                full = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
                what, path = ("the journal's copy", copy.path) if full else (NAME, self.journal)
                if (known := explained(error, path, name=what, cure=CURE, done="written" if full else "read")) is None:
                    raise
                raise known from error
            if found is not None:
                raise DataError(f"{NAME} is damaged: {found}", where=str(self.journal), hint=CURE)
        for old in self.newest_first()[KEPT:]:
            old.path.unlink(missing_ok=True)
        return copy


def damage_of(path: Path) -> str | None:
    """Return what is wrong with a journal or a copy of one, None when it is sound; it may be in use."""
    if not path.is_file() or path.stat().st_size == 0:
        return "it is empty" if path.exists() else "it is gone"
    if (lost := lost_in_log(path)) is not None:
        return f"opening it would leave out {lost}"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return CHECK.damage(db)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return str(error)


def _copied(journal: Path, target: Path) -> str | None:
    """Copy all pages and return what is wrong with the copy, None when it is sound."""
    with (
        closing(sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True)) as old,
        closing(sqlite3.connect(target, isolation_level=None)) as new,
    ):
        old.backup(new)  # all pages in one step: in steps, every write of the journal would start it again
        new.execute("PRAGMA journal_mode = DELETE")  # one file
        return CHECK.damage(new)


def _time_of(path: Path) -> int | None:
    if (found := _NAME.match(path.name)) is None:
        return None
    moment = datetime.strptime(found[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return int(moment.timestamp()) * NS_PER_S + int(found[2])
