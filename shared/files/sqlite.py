"""One way to open SQLite in the lab: WAL, foreign keys, busy timeout, and migrations as numbered steps."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from shared.files.database import Database
from shared.kernel.errors import ConfigurationError

INT64_MAX = 2**63 - 1
"""The largest integer that SQLite holds; what comes from the network and goes into a query is bounded by it."""


async def open_database(
    path: Path, migrations: Sequence[str], *, name: str, cure: str, synchronous: Literal["FULL", "NORMAL"] = "FULL"
) -> Database:
    """Open `path`, bring it to the newest schema and return it.

    Args:
        path: database file; its folder is made.
        migrations: SQL scripts; number i brings `user_version` from i to i + 1, each in one transaction.
        name: what it is to people, for example `the journal`.
        cure: what to do when it is damaged.
        synchronous: FULL for what must survive a power cut, NORMAL for batched traces.

    Raises:
        ConfigurationError: the file was written by a newer version of the lab.
        DataError: the file is damaged.
        StorageError: the disk cannot be read or takes nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)

    def connect() -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA busy_timeout = 5000")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {synchronous}")
            db.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            db.close()
            raise
        return db

    database = Database(path, connect, name=name, cure=cure)
    try:
        await database.maintain(lambda db: _migrate(db, path, migrations))
    except BaseException:
        await database.close()
        raise
    return database


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
