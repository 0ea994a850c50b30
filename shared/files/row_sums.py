"""Rows that carry a checksum of their own, so that a bit that flips on a disk is found, never believed.

SQLite's own checks find what is wrong with a file's structure; a digit that changes within a value they do not see. A
`SummedTable` has a column `row_sum` beside those it covers. Triggers of the connection, not of the file, fill it in
with every row that is written, so that no writer can forget it and any other program can still read the file.

Not here: opening a database (`sqlite`); tables whose writer fills the column in by itself (the trace's samples).
"""

import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FUNCTION: Final = "row_sum"
"""Name of the SQL function, and of the column that holds what it returns."""
_NULL: Final = b"\xff"


class RowDamagedError(sqlite3.DatabaseError):
    """A row is not what was written; `Database` says which file that is, and what to do."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    sqlite_errorname = "SQLITE_CORRUPT"


def row_sum(*values: object) -> int:
    """Return the CRC-32 of a row's values; the same in every version, since it is kept."""
    return zlib.crc32(b"\0".join([_bytes(value) for value in values]))


def _bytes(value: object) -> bytes:
    if value is None:
        return _NULL
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else repr(value).encode()


def add_function(db: sqlite3.Connection) -> None:
    """Let a connection's statements call `row_sum`."""
    db.create_function(FUNCTION, -1, row_sum, deterministic=True)


@dataclass(frozen=True)
class SummedTable:
    """A table and the columns that its checksum covers."""

    name: str
    columns: tuple[str, ...]

    def stamp(self) -> str:
        """Return the SQL that adds the column and fills it in: a part of the migration that begins to sum a table."""
        return (
            f"ALTER TABLE {self.name} ADD COLUMN {FUNCTION} INTEGER;"
            f" UPDATE {self.name} SET {FUNCTION} = {self._expression()};"
        )

    def keep(self, db: sqlite3.Connection) -> None:
        """Fill the column in with all that this connection writes from here on; nothing where the table has none."""
        if FUNCTION not in {row[1] for row in db.execute(f"PRAGMA table_info({self.name})")}:
            return
        for event in ("INSERT", f"UPDATE OF {', '.join(self.columns)}"):
            db.execute(
                f"CREATE TEMP TRIGGER IF NOT EXISTS {self.name}_{event[:6].lower()}"
                f" AFTER {event} ON main.{self.name} BEGIN"
                f" UPDATE {self.name} SET {FUNCTION} = {self._expression('NEW.')} WHERE rowid = NEW.rowid; END"
            )

    def damage(self, db: sqlite3.Connection) -> str | None:
        """Read every row and return what is wrong, None when each is as it was written."""
        sql = f"SELECT rowid FROM {self.name} WHERE {FUNCTION} IS NOT {self._expression()} LIMIT 1"
        try:
            row = db.execute(sql).fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise
            return f"a row of table {self.name} cannot be read: {error}"
        return None if row is None else f"row {row[0]} of table {self.name} is not as it was written"

    def is_sound(self, row: sqlite3.Row) -> bool:
        """Tell whether a whole row (`SELECT *`) is as it was written."""
        found: object = row[FUNCTION]
        return found == row_sum(*(row[column] for column in self.columns))

    def checked(self, rows: Sequence[sqlite3.Row]) -> Sequence[sqlite3.Row]:
        """Return whole rows.

        Raises:
            RowDamagedError: one of them is not as it was written.
        """
        for row in rows:
            if not self.is_sound(row):
                raise RowDamagedError(f"a row of table {self.name} is not as it was written")
        return rows

    def _expression(self, prefix: str = "") -> str:
        return f"{FUNCTION}({', '.join(prefix + column for column in self.columns)})"


def keep_sums(db: sqlite3.Connection, tables: Sequence[SummedTable]) -> None:
    """Prepare a connection that writes summed tables."""
    add_function(db)
    db.execute("PRAGMA temp_store = MEMORY")
    for table in tables:
        table.keep(db)
