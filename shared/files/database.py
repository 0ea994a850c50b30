"""An open SQLite database: one thread that does everything to it, whole writes, errors that say what to do.

A write is one function, run on that thread between BEGIN and COMMIT. Cancelling the caller cannot tear it: either it
had not begun and never happens, or it is committed (or rolled back) before the caller's cancellation goes on. While the
disk takes nothing, the database says so in `problem` and tries by itself, with growing pauses, until it takes again.

Not here: how a database is found sound, opened and migrated (`sqlite`); what is in it.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from shared.files.disk import DISK_FULL, is_full, room_hint
from shared.kernel.errors import DataError, EpiError, InfrastructureError, StorageError
from shared.service.health import HealthRegistry

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 30.0

_REFUSED: Final = {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_PERM,
}  # fmt: skip
_GROWING: Final = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
"""What SQLite also says when the write-ahead log's index has no room to grow."""
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
"""What SQLite says of a file that is not what it wrote."""
_NO_TEXT: Final = "Could not decode to UTF-8"
"""What Python's module says of a text that is none any more; it has no code."""


class Database:
    """A connection and its thread.

    Args:
        path: the database file.
        connect: opens it, on the database's own thread; called again should a connection become unusable.
        name: what it is to people, for example `the journal`.
        cure: what to do when the file is damaged.
    """

    def __init__(self, path: Path, connect: Callable[[], sqlite3.Connection], *, name: str, cure: str) -> None:
        self.path = path
        self.name = name
        self._connect = connect
        self._cure = cure
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=path.name)
        self._connection: sqlite3.Connection | None = None
        self._problem: EpiError | None = None
        self._listeners: list[Callable[[EpiError | None], None]] = []
        self._trying: asyncio.Task[None] | None = None
        self._pause_s = FIRST_RETRY_S
        self._closed = False

    @property
    def problem(self) -> EpiError | None:
        """Why nothing can be written at the moment; None while writing works."""
        return self._problem

    def on_problem(self, listener: Callable[[EpiError | None], None]) -> None:
        """Call `listener` when writing begins to fail, fails for another reason, or works again (None)."""
        self._listeners.append(listener)

    def report_to(self, health: HealthRegistry, key: str) -> None:
        """Tell the daemon's health when writing fails, and when it works again."""

        def report(problem: EpiError | None) -> None:
            if problem is None:
                health.clear(key)
            else:
                health.set(key, str(problem), failing=True)

        self.on_problem(report)

    async def read(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `ask` reads.

        Raises:
            DataError: the file is damaged.
            StorageError: the disk cannot be read.
        """
        return await self._do(partial(self._read, ask))

    async def write(self, change: Callable[[sqlite3.Connection], T], committed: Callable[[T], None] | None = None) -> T:
        """Do all of `change` in one transaction, or nothing of it; return what it returns.

        `committed` is called once for each change that is in the database, also when the caller is cancelled
        meanwhile, in the order of the commits and before anything else is done with the result.

        Raises:
            StorageError: the disk takes nothing.
            DataError: the file is damaged.
            Exception: what `change` raised; it is rolled back.
        """
        return await self._do(partial(self._write, change), committed, writes=True)

    async def maintain(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do what looks after its own transactions: a migration, VACUUM, a copy. Like a write it is not torn.

        Raises:
            StorageError: the disk takes nothing.
            DataError: the file is damaged.
        """
        return await self._do(partial(self._read, work))

    async def close(self) -> None:
        """End what was begun and close."""
        if self._trying is not None:
            self._trying.cancel()
            await asyncio.gather(self._trying, return_exceptions=True)
        self._closed = True
        try:
            await asyncio.wrap_future(self._thread.submit(self._disconnect))
        finally:
            self._thread.shutdown(wait=False)

    async def _do(
        self, work: Callable[[], T], committed: Callable[[T], None] | None = None, *, writes: bool = False
    ) -> T:
        if self._closed:
            raise InfrastructureError(f"{self.name} is closed: the service stops", where=str(self.path))
        begun = self._thread.submit(work)
        waiting = asyncio.wrap_future(begun)
        waiting.add_done_callback(partial(self._ended, committed, writes))
        try:
            await asyncio.wait((waiting,))
        except asyncio.CancelledError:
            if not begun.cancel():
                while not waiting.done():  # it cannot be stopped any more
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait((waiting,))
            raise
        return waiting.result()

    def _ended(self, committed: Callable[[T], None] | None, writes: bool, waiting: "asyncio.Future[T]") -> None:
        if waiting.cancelled():
            return
        error = waiting.exception()
        if isinstance(error, StorageError | DataError) and error.where == str(self.path):
            self._refused(error)
        if error is not None:
            return
        if writes:
            self._pause_s = FIRST_RETRY_S
            self._accepted()
        if committed is not None:
            try:
                committed(waiting.result())
            except Exception:
                log.exception("what listens to %s failed", self.name)

    def _read(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return ask(self._connected())
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if (known := self._explained(error, "read")) is None:
                raise
            raise known from error

    def _write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        try:
            db = self._connected()
            db.execute("BEGIN IMMEDIATE")
            try:
                result = change(db)
                db.execute("COMMIT")
            except BaseException:
                self._roll_back(db)
                raise
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if (known := self._explained(error, "written")) is None:
                raise
            raise known from error
        return result

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _roll_back(self, db: sqlite3.Connection) -> None:
        try:
            if db.in_transaction:  # of some errors SQLite rolls back by itself
                db.execute("ROLLBACK")
        except sqlite3.Error:
            log.exception("%s is opened anew, since a transaction could not be rolled back", self.name)
            with contextlib.suppress(sqlite3.Error):
                self._disconnect()
            self._connection = None

    def _explained(self, error: sqlite3.Error | UnicodeDecodeError, done: str) -> EpiError | None:
        return explained(error, self.path, name=self.name, cure=self._cure, done=done)

    def _refused(self, error: EpiError) -> None:
        if self._problem is None or str(self._problem) != str(error):
            self._tell(error)
        if isinstance(error, StorageError) and (self._trying is None or self._trying.done()):
            self._trying = asyncio.create_task(self._try_again())

    def _accepted(self) -> None:
        if isinstance(self._problem, StorageError):
            self._tell(None)

    def _tell(self, problem: EpiError | None) -> None:
        self._problem = problem
        for listener in self._listeners:
            listener(problem)

    async def _try_again(self) -> None:
        """Write one page with growing pauses until the disk takes it, so that nobody's next write has to find out."""
        while isinstance(self._problem, StorageError):
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_RETRY_S)
            with contextlib.suppress(EpiError):
                await self._do(partial(self._write, touch))
                self._accepted()


def touch(db: sqlite3.Connection) -> None:
    """Write a page that changes nothing, to see whether the disk takes it."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    db.execute(f"PRAGMA user_version = {version}")


def explained(
    error: sqlite3.Error | UnicodeDecodeError, path: Path, *, name: str, cure: str, done: str
) -> EpiError | None:
    """Return the lab's error for what SQLite said of the disk or the file; None when it is about neither.

    `done` is what was tried: `read` or `written`. What SQLite says of a damaged schema may be no text itself.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _DAMAGED or isinstance(error, UnicodeDecodeError) or str(error).startswith(_NO_TEXT):
        return DataError(f"{name} is damaged: {error}", where=str(path), hint=cure)
    if code not in _REFUSED:
        return None
    full = code == sqlite3.SQLITE_FULL or (code in _GROWING and is_full(path))
    hint = "end the program that holds it" if code == sqlite3.SQLITE_BUSY else room_hint(path, full=full)
    what = f"{name} cannot be {done}: {DISK_FULL if full else error}"
    return StorageError(what, where=str(path), hint=hint)
