"""SQLite with group commit, for the stores, the local broker and the dead letters: one fsync for many writes.

Statements run on the event loop's thread, where they take microseconds; only COMMIT, which waits for the disk, runs in
another. Jobs that arrive while one group commits form the next group, so a busier file needs fewer syncs per job. A job
runs without interruption on the loop's thread, so it never sees the partial work of another job.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, NamedTuple, TypeVar

from observability.failpoints import failpoint

T = TypeVar("T")

_log = logging.getLogger("shop.sqlite")
_LARGEST_GROUP: Final = 256
_BUSY_RETRY: Final = 0.01  # seconds
_LATER: Final = 0.005  # seconds that a job given to `run_later` may wait for others
_AFTER_FAILURE: Final = 1.0


class StorageError(Exception):
    """A write failed, or was not durable in time: the disk is full or failing, or another process locks the file.

    A commit that took too long may still succeed later. Also raised after `close`.
    """


class SchemaTooNew(StorageError):
    """The file was written by a newer version of this program."""


def connect(path: Path, schema: Sequence[str], upgrades: Sequence[Sequence[str]] = ()) -> sqlite3.Connection:
    """Open or create a WAL database for writing. See `migrate` for the schema. Raises SchemaTooNew."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        migrate(connection, path, schema, upgrades)
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(
    connection: sqlite3.Connection, path: Path, schema: Sequence[str], upgrades: Sequence[Sequence[str]]
) -> None:
    """Bring a file to the newest schema, in one transaction. Raises SchemaTooNew and leaves such a file unchanged.

    `schema` has the statements for an empty file. `upgrades[0]` has those that migrate version 1 to 2, and so on.
    """
    newest = len(upgrades) + 1
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > newest:
        raise SchemaTooNew(
            f"{path} has schema version {version}, this program knows {newest}: "
            "run the newer program, or point it to another data directory"
        )
    if version < newest:
        steps = chain.from_iterable(upgrades[version - 1 :]) if version else schema
        for statement in ("BEGIN IMMEDIATE", *steps, f"PRAGMA user_version = {newest}", "COMMIT"):
            connection.execute(statement)


class _Job(NamedTuple):
    work: Callable[[], Any]
    done: asyncio.Future[Any] | None  # None for a job that nobody waits for
    committed: Callable[[Any], None] | None = None


class GroupCommit:
    """Runs jobs in transactions on a connection that only this object uses for writing.

    A job fails with StorageError if it has not begun, or its commit has not ended, within `timeout` seconds.
    """

    def __init__(self, connection: sqlite3.Connection, timeout: float = 5.0) -> None:
        self._connection = connection
        self._timeout = timeout
        self._commits: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread = Thread(target=_run_commits, args=(self._commits,), name="commit", daemon=True)
        self._thread.start()
        self._waiting: deque[_Job] = deque()
        self._later: deque[_Job] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._flush = False  # start a group even if only later jobs wait
        self._exclusive: deque[tuple[Callable[[], bool], asyncio.Future[bool]]] = deque()
        self._group: list[tuple[_Job, Any]] = []
        self._busy = False  # a group runs or is about to run
        self._stuck = False  # the group's commit is overdue
        self._closed = False
        self._idle: asyncio.Event | None = None

    async def run(self, work: Callable[[], T], committed: Callable[[T], None] | None = None) -> T:
        """Run `work` in a transaction, and return its result after the commit.

        Then `committed` is called with the result, even if the caller has given up. If `work` raises, nothing is
        written and the error is raised. Raises StorageError if the database fails, and after `close`.
        """
        self._require_usable()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Job(work, done, committed))
        self._ensure_running(loop)
        return await done

    def run_later(self, work: Callable[[], object]) -> None:
        """Run `work` in the next group, before the jobs of `run`; the caller does not wait for it.

        If no job of `run` comes, the group starts after 5 ms. If the database fails, the work is tried again.
        """
        self._later.append(_Job(work, None))
        if not self._busy:
            self._start_timer(_LATER)

    async def run_exclusive(self, work: Callable[[], bool]) -> bool:
        """Run `work` in the commit thread between two groups, outside any transaction, while writers wait.

        Returns the result of `work`, or False if the database fails.
        """
        self._require_usable()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()
        self._exclusive.append((work, done))
        self._ensure_running(loop)
        return await done

    async def close(self) -> bool:
        """Finish the accepted jobs. Returns False if `close` was called before."""
        if self._closed:
            return False
        self._closed = True
        if self._timer:
            self._timer.cancel()
        if self._later:
            self._flush = True
            self._ensure_running(asyncio.get_running_loop())
        if self._busy:
            self._idle = asyncio.Event()
            await self._idle.wait()
        self._commits.put(None)
        self._thread.join()
        return True

    def _require_usable(self) -> None:
        if self._closed or self._stuck:
            raise StorageError("the file is closed" if self._closed else "a commit is overdue")

    def _start_timer(self, delay: float) -> None:
        """Start a group for the jobs of `run_later` after `delay` seconds, unless a group starts earlier."""
        if self._timer is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay, self._flush_later, loop)

    def _flush_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, self._flush = None, True
        self._ensure_running(loop)

    def _ensure_running(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._busy:
            self._busy = True
            self._schedule(loop)

    def _next(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        if self._exclusive:
            self._run_alone(loop, *self._exclusive.popleft())
            return
        if not self._waiting and not (self._flush and self._later):
            self._busy = self._flush = False
            if self._later:
                self._start_timer(_LATER)
            if self._idle:
                self._idle.set()
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if loop.time() < deadline:  # another process writes, so retry
                loop.call_later(_BUSY_RETRY, self._next, loop, deadline)
                return
            _log.error("the database takes no transaction: %s", error)
            self._fail_waiting(error)
            self._flush = False
            if self._later:
                self._start_timer(_AFTER_FAILURE)
            self._schedule(loop)
            return
        self._run_group(loop)

    def _run_alone(self, loop: asyncio.AbstractEventLoop, work: Callable[[], bool], done: asyncio.Future[bool]) -> None:
        def finished(outcome: bool) -> None:
            if not done.done():
                done.set_result(outcome)
            self._schedule(loop)

        self._commits.put(lambda: loop.call_soon_threadsafe(finished, _succeeds(work)))

    def _run_group(self, loop: asyncio.AbstractEventLoop) -> None:
        before = self._connection.total_changes
        while (queue := self._later or self._waiting) and len(self._group) < _LARGEST_GROUP:
            if not self._run_job(queue.popleft()):
                self._schedule(loop)
                return
        self._flush = self._flush and bool(self._later)
        if self._connection.total_changes == before:  # nothing was written, so there is nothing to sync
            self._end_group(loop, _commit(self._connection))
            return
        watch = loop.call_later(self._timeout, self._overdue)

        def finished(error: Exception | None) -> None:
            watch.cancel()
            self._end_group(loop, error)

        self._commits.put(lambda: loop.call_soon_threadsafe(finished, _commit(self._connection)))

    def _run_job(self, job: _Job) -> bool:
        """Run a job and return whether its group continues.

        Otherwise the group was rolled back. Its other jobs wait for the next group, or fail if the database failed.
        """
        if job.done and job.done.done():  # the caller gave up
            return True
        before = self._connection.total_changes
        try:
            self._group.append((job, job.work()))
        except Exception as error:
            if _is_broken(error):
                self._group.append((job, None))
                self._abandon_group(error)
                return False
            _fail(job, error)
            if self._connection.total_changes == before:
                return True
            self._abandon_group(None)
            return False
        return True

    def _abandon_group(self, error: Exception | None) -> None:
        _rollback(self._connection)
        if error is None:  # only one job failed, so run the others again
            group, self._group = self._group, []
            self._waiting.extendleft(job for job, _ in reversed(group))
            return
        _log.error("the database failed: %s", error)
        self._fail_group(error)

    def _fail_group(self, error: Exception) -> None:
        """Fail the callers of `run` in this group, and try the group's jobs of `run_later` again after a pause."""
        group, self._group = self._group, []
        for job, _ in group:
            _fail(job, StorageError(str(error)))
        if later := [job for job, _ in group if job.done is None]:
            self._flush = False
            self._later.extendleft(reversed(later))
            self._start_timer(_AFTER_FAILURE)

    def _end_group(self, loop: asyncio.AbstractEventLoop, error: Exception | None) -> None:
        self._stuck = False
        if error:
            _log.error("a commit failed: %s", error)
            self._fail_group(error)
        group, self._group = self._group, []
        for job, result in group:
            if job.done and not job.done.done():
                job.done.set_result(result)
            if job.committed:
                job.committed(result)
        self._schedule(loop)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon(self._next, loop, loop.time() + self._timeout)

    def _overdue(self) -> None:
        error = TimeoutError(f"a commit takes more than {self._timeout} s")
        _log.error("%s", error)
        self._stuck = True
        for job, _ in self._group:
            _fail(job, StorageError(str(error)))
        self._fail_waiting(error)

    def _fail_waiting(self, error: Exception) -> None:
        while self._waiting:
            _fail(self._waiting.popleft(), StorageError(str(error)))


def _run_commits(commits: SimpleQueue[Callable[[], object] | None]) -> None:
    while (commit := commits.get()) is not None:
        with suppress(RuntimeError):  # raised if the loop was closed before the commit ended
            commit()


def _succeeds(work: Callable[[], bool]) -> bool:
    try:
        return work()
    except sqlite3.Error as error:
        _log.warning("the database could not do it: %s", error)
        return False


def _commit(connection: sqlite3.Connection) -> Exception | None:
    try:
        failpoint("sqlite.commit.before")
        connection.execute("COMMIT")
        failpoint("sqlite.commit.after")
    except Exception as error:
        _rollback(connection)
        return error
    return None


def _rollback(connection: sqlite3.Connection) -> None:
    try:
        if connection.in_transaction:  # after some failures SQLite has rolled back already
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        _log.error("a rollback failed: %s", error)


def _is_broken(error: Exception) -> bool:
    """Return whether the error was caused by the database and not by the job."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def _fail(job: _Job, error: Exception) -> None:
    if job.done is None:
        _log.error("a later job failed: %s", error)
    elif not job.done.done():
        job.done.set_exception(error)
