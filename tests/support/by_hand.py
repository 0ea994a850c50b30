"""Changing a database by hand, as no program of the lab would, and yet with rows whose checksums are right."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from shared.files.row_sums import SummedTable, keep_sums


@contextmanager
def by_hand(path: Path, summed: Sequence[SummedTable]) -> Iterator[sqlite3.Connection]:
    """Yield a connection; what was changed is committed at the end."""
    with closing(sqlite3.connect(path)) as db, db:
        keep_sums(db, summed)
        yield db
