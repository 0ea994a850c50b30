"""One way to open SQLite in the lab: WAL, foreign keys, busy timeout, and migrations as numbered steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import aiosqlite

from shared.kernel.errors import ConfigurationError

INT64_MAX = 2**63 - 1
"""The largest integer that SQLite holds; what comes from the network and goes into a query is bounded by it."""


async def open_database(
    path: Path, migrations: Sequence[str], *, synchronous: Literal["FULL", "NORMAL"] = "FULL"
) -> aiosqlite.Connection:
    """Open `path`, bring it to the newest schema and return the connection (autocommit mode).

    Args:
        path: database file; its folder is made.
        migrations: SQL scripts; number i brings `user_version` from i to i + 1, each in one transaction.
        synchronous: FULL for what must survive a power cut, NORMAL for batched traces.

    Raises:
        ConfigurationError: the file was written by a newer version of the lab.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    db = await aiosqlite.connect(path, isolation_level=None)
    try:
        db.row_factory = aiosqlite.Row
        await db.execute("PRAGMA journal_mode = WAL")
        await db.execute(f"PRAGMA synchronous = {synchronous}")
        await db.execute("PRAGMA foreign_keys = ON")
        await db.execute("PRAGMA busy_timeout = 5000")
        async with db.execute("PRAGMA user_version") as cursor:
            row = await cursor.fetchone()
        version = int(row[0]) if row else 0
        if version > len(migrations):
            raise ConfigurationError(
                f"the database has schema {version}, this program knows {len(migrations)}",
                where=str(path),
                hint="use the newer version of EPI Factory that wrote it",
            )
        for number, script in enumerate(migrations[version:], start=version + 1):
            await db.executescript(f"BEGIN IMMEDIATE;\n{script}\n;PRAGMA user_version = {number};\nCOMMIT;")
    except BaseException:
        await db.close()
        raise
    return db
