"""One way to open SQLite in the lab: found sound, WAL, foreign keys, busy timeout, migrations as numbered steps."""

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from shared.files.atomic import move_into_place, write_file
from shared.files.database import Database
from shared.files.row_sums import FUNCTION, SummedTable, add_function, keep_sums
from shared.files.wal import lost_in_log
from shared.kernel.errors import ConfigurationError, DataError, StorageError

log = logging.getLogger(__name__)

CHECKED_WHOLE_BYTES: Final = 2 << 30

INT64_MAX = 2**63 - 1
"""The largest integer that SQLite holds; what comes from the network and goes into a query is bounded by it."""


async def open_database(
    path: Path, migrations: Sequence[str], *, name: str, cure: str, synchronous: Literal["FULL", "NORMAL"] = "FULL",
    summed: Sequence[SummedTable] = (), indexes_checked: bool = False,
) -> Database:  # fmt: skip
    """Open `path`, found sound, bring it to the newest schema and return it.

    A new one is made only where none was: a file that is empty, or missing beside the marker of an earlier one, is a
    loss that somebody has to know of.

    Args:
        path: database file; its folder is made.
        migrations: SQL scripts; number i brings `user_version` from i to i + 1, each in one transaction.
        name: what it is to people, for example `the journal`.
        cure: what to do when it is damaged or lost.
        synchronous: FULL for what must survive a power cut, NORMAL for batched traces.
        summed: tables whose rows carry a checksum: each row is looked at, and kept right with every write.
        indexes_checked: hold the indexes against their tables as well, which takes several times as long.

    Raises:
        ConfigurationError: the file was written by a newer version of the lab.
        DataError: the file is damaged, empty or gone.
        StorageError: the disk cannot be read or takes nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not _was_made(path, name, cure):
        await _make(path, migrations, name, cure)
    check = Check(tuple(summed), indexes_checked)
    connect = partial(_connect, path, synchronous, check.summed)
    database = await _opened(Database(path, connect, name=name, cure=cure), migrations, cure, check)
    with suppress(OSError, StorageError):  # a full disk: the next start marks it
        if not (marker := _marker(path)).exists():
            write_file(marker, f"{name} was made here: where its file is missing, no new one is begun.\n")
    return database


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}.made")


def _was_made(path: Path, name: str, cure: str) -> bool:
    """Tell whether the database is there.

    Raises:
        DataError: it was there, and is not any more.
    """
    if path.exists():
        if path.stat().st_size == 0:
            raise DataError(f"{name} is empty: what was in it is lost", where=str(path), hint=cure)
        if (lost := lost_in_log(path)) is not None:
            raise DataError(f"{name} is damaged: opening it would leave out {lost}", where=str(path), hint=cure)
        return True
    left = [one for one in (_marker(path), path.with_name(f"{path.name}-wal")) if one.exists()]
    if left:
        raise DataError(
            f"{name} is gone: {left[0].name} beside it tells that there was one", where=str(path),
            hint=f"{cure}; to begin anew, without what was in it, remove {left[0]}",
        )  # fmt: skip
    return False


async def _make(path: Path, migrations: Sequence[str], name: str, cure: str) -> None:
    """Make an empty database; half a one never has the name."""
    beside = path.with_name(f".{path.name}.new")
    for left in (beside, *(beside.with_name(beside.name + end) for end in ("-wal", "-shm"))):
        left.unlink(missing_ok=True)
    made = Database(beside, partial(_connect, beside, "FULL", ()), name=name, cure=cure)
    await (await _opened(made, migrations, cure, Check())).close()
    move_into_place(beside, path)


def _connect(path: Path, synchronous: str, summed: Sequence[SummedTable]) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA busy_timeout = 5000")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {synchronous}")
        db.execute("PRAGMA foreign_keys = ON")
        keep_sums(db, summed)
    except BaseException:
        db.close()
        raise
    return db


async def _opened(database: Database, migrations: Sequence[str], cure: str, check: "Check") -> Database:
    def prepare(db: sqlite3.Connection) -> None:
        if database.path.stat().st_size > CHECKED_WHOLE_BYTES:
            log.info("%s is too large to be looked through at the start: %s", database.name, database.path)
        elif (found := check.damage(db)) is not None:
            raise DataError(f"{database.name} is damaged: {found}", where=str(database.path), hint=cure)
        try:
            _migrate(db, database.path, migrations)
            if (table := _unlike_made(db, migrations)) is not None:
                raise DataError(
                    f"{database.name} is damaged: table {table} is not as it was made", where=str(database.path),
                    hint=cure,
                )  # fmt: skip
            keep_sums(db, check.summed)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise
            raise DataError(
                f"{database.name} is damaged: it is not what its version says: {error}", where=str(database.path),
                hint=cure,
            ) from error  # fmt: skip

    try:
        await database.maintain(prepare)
    except BaseException:
        await database.close()
        raise
    return database


@dataclass(frozen=True)
class Check:
    """How a database is looked through: all pages, every row of the summed tables, and the indexes where asked."""

    summed: tuple[SummedTable, ...] = ()
    indexes: bool = False

    def damage(self, db: sqlite3.Connection) -> str | None:
        """Return what is wrong with a database, None when it is sound; `db` may be a copy, opened by anybody.

        Raises:
            sqlite3.DatabaseError: it is so damaged that SQLite cannot read it.
        """
        found = [str(row[0]) for row in db.execute(f"PRAGMA {'integrity' if self.indexes else 'quick'}_check(1)")]
        if found != ["ok"]:
            return found[0]
        add_function(db)
        for table in self.summed:
            columns = {row[1] for row in db.execute(f"PRAGMA table_info({table.name})")}
            if FUNCTION in columns and (wrong := table.damage(db)) is not None:
                return wrong
        return None


async def open_read_only(path: Path, *, name: str, cure: str) -> Database:
    """Open a database that its writer has made, for reading beside it."""

    def connect() -> sqlite3.Connection:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA busy_timeout = 5000")
        return db

    database = Database(path, connect, name=name, cure=cure)
    try:
        await database.read(lambda db: db.execute("SELECT 1 FROM sqlite_schema").fetchone())
    except BaseException:
        await database.close()
        raise
    return database


def _unlike_made(db: sqlite3.Connection, migrations: Sequence[str]) -> str | None:
    """Return the name of a table whose columns are not those that the migrations make; None when all are."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        add_function(made)
        _migrate(made, Path(":memory:"), migrations)
        for (name,) in made.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            sql = f"SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_info('{name}') ORDER BY cid"
            if [tuple(row) for row in db.execute(sql)] != made.execute(sql).fetchall():
                return str(name)
    return None


def _migrate(db: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > len(migrations):
        raise ConfigurationError(
            f"the database has schema {version}, this program knows {len(migrations)}",
            where=str(path),
            hint="use the newer version of EPI Factory that wrote it",
        )
    for number, script in enumerate(migrations[version:], start=version + 1):
        db.executescript(f"BEGIN IMMEDIATE;\n{script}\n;PRAGMA user_version = {number};\nCOMMIT;")
