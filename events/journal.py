"""SQLite with group commit, for the local broker and the dead letters: one fsync for many writes.

Statements run on the event loop's thread (microseconds each). COMMIT waits for the disk and runs in a separate thread.
Writes that arrive meanwhile join the next group.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

from observability.failpoints import failpoint

log = logging.getLogger("shop.journal")

Row = tuple[Any, ...]
_LAZY: Final = 0.005  # seconds that a row given to `later` may wait for others
_AFTER_FAILURE: Final = 1.0


class StorageError(Exception):
    """The write is not durable, because the disk is full or failing or the file belongs to another program."""


class SchemaTooNew(StorageError):
    """The file was written by a newer version of this program."""


def connect(path: Path, schema: str, version: int, upgrades: Sequence[str] = ()) -> sqlite3.Connection:
    """Open or create a WAL database of this schema version. Raises SchemaTooNew for a later version.

    `schema` creates a new database; `upgrades[0]` migrates version 1 to version 2, and so on.
    """
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    db.execute("PRAGMA busy_timeout=1000")
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found > version:
        db.close()
        raise SchemaTooNew(
            f"{path.name} has schema version {found}, this program knows {version}: "
            "run the newer program, or point it to another data directory"
        )
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA wal_autocheckpoint=4000")
    if found < version:
        steps = ";".join(upgrades[found - 1 :]) if found else schema
        db.executescript(f"BEGIN IMMEDIATE;{steps};PRAGMA user_version={version};COMMIT;")
    return db


class _Group:
    __slots__ = ("awaited", "done", "lazy", "then")

    def __init__(self) -> None:
        self.awaited: dict[str, list[Row]] = {}
        self.lazy: dict[str, list[Row]] = {}
        self.then: list[Callable[[], None]] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done.add_done_callback(_retrieve)


class Journal:
    """Writes rows with a fixed sequence of statements; within a group, statements run in that order.

    Create and use it on one event loop. Rows given to `later` are written soon. Rows given to `commit` are durable when
    the future is done; if the future raises StorageError, they were not written.
    """

    def __init__(self, db: sqlite3.Connection, statements: Sequence[str]) -> None:
        self._db = db
        self._statements = statements
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._loop = asyncio.get_running_loop()
        self._next = _Group()
        self._committing: _Group | None = None
        self._timer: asyncio.Handle | None = None
        self._urgent = False
        self._closed = False

    def later(self, statement: str, row: Row) -> None:
        """Write a row soon, together with others; the caller does not wait for it."""
        self._next.lazy.setdefault(statement, []).append(row)
        if self._committing is None and self._timer is None:
            self._timer = self._loop.call_later(_LAZY, self._begin)

    def commit(
        self, rows: Iterable[tuple[str, Row]], then: Callable[[], None] | None = None
    ) -> asyncio.Future[None]:
        """Write all rows or none; return a future that is done when they are durable.

        `then` runs right after the commit, in the order of the calls. Raises StorageError after `close`.
        """
        if self._closed:
            raise StorageError("the storage is closed")
        group = self._next
        for statement, row in rows:
            group.awaited.setdefault(statement, []).append(row)
        if then is not None:
            group.then.append(then)
        if not self._urgent:
            self._urgent = True
            if self._committing is None:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = self._loop.call_soon(self._begin)
        # Shielded, because a cancelled caller must not cancel the commit for the other callers of the group.
        return asyncio.shield(group.done)

    async def flush(self) -> None:
        """Wait until all rows given so far are durable. Raises StorageError."""
        await self.commit(())

    async def close(self) -> None:
        """Flush and close the database."""
        try:
            await self.flush()
        except StorageError:
            log.exception("the last writes are lost")
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._thread.shutdown()
        self._db.close()

    def _begin(self) -> None:
        group = self._committing = self._next
        self._next, self._timer, self._urgent = _Group(), None, False
        try:
            self._execute(group)
            failpoint("journal.commit.before")
        except sqlite3.Error as error:
            self._failed(group, error)
            return
        work = self._loop.run_in_executor(self._thread, self._db.execute, "COMMIT")
        work.add_done_callback(partial(self._committed, group))

    def _execute(self, group: _Group) -> None:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        for statement in self._statements:
            for rows in (group.awaited.get(statement), group.lazy.get(statement)):
                if rows:
                    db.executemany(statement, rows)

    def _committed(self, group: _Group, work: asyncio.Future[sqlite3.Cursor]) -> None:
        error = work.exception()
        if error is not None:
            self._failed(group, error)
            return
        failpoint("journal.commit.after")
        for then in group.then:
            then()
        group.done.set_result(None)
        self._committing = None
        if self._urgent:
            self._begin()
        elif self._next.lazy:
            self._timer = self._loop.call_later(_LAZY, self._begin)

    def _failed(self, group: _Group, error: BaseException) -> None:
        """Fail the waiting callers; retry the other rows with the next group, after a pause."""
        log.error("a group of writes failed", extra={"error": str(error)})
        if self._db.in_transaction:
            self._db.rollback()
        for statement, rows in group.lazy.items():
            self._next.lazy[statement] = rows + self._next.lazy.get(statement, [])
        group.done.set_exception(StorageError(str(error)))
        self._committing = None
        if self._timer is None:
            delay = 0.05 if self._urgent else _AFTER_FAILURE
            self._timer = self._loop.call_later(delay, self._begin)


def _retrieve(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()  # marks the exception as retrieved; _failed has logged it
