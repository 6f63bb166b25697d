"""Group commit. Statements run on the event loop's thread; only COMMIT, which waits for the disk, runs in another.

Jobs that arrive while one group commits form the next group, so a busier store needs fewer syncs per job. A job runs
without interruption on the loop's thread, so it never sees the partial work of another job.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, TypeVar

from functions.runtime.store.port import store_unavailable
from observability.failpoints import failpoint

T = TypeVar("T")

_log = logging.getLogger("shop.store")
_LARGEST_GROUP = 256
_BUSY_RETRY = 0.01  # seconds


class _Job(NamedTuple):
    work: Callable[[], Any]
    done: asyncio.Future[Any]
    committed: Callable[[Any], None] | None


class GroupCommit:
    """Runs jobs in transactions on a connection that only this object uses for writing.

    A job fails with UNAVAILABLE if it has not begun, or its commit has not ended, within `timeout` seconds.
    """

    def __init__(self, connection: sqlite3.Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._commits: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread = Thread(target=_run_commits, args=(self._commits,), name="store-commit", daemon=True)
        self._thread.start()
        self._waiting: deque[_Job] = deque()
        self._exclusive: deque[tuple[Callable[[], bool], asyncio.Future[bool]]] = deque()
        self._group: list[tuple[_Job, Any]] = []
        self._busy = False  # a group runs or is about to run
        self._stuck = False  # the group's commit is overdue
        self._closed = False
        self._idle: asyncio.Event | None = None

    async def run(self, work: Callable[[], T], committed: Callable[[T], None] | None = None) -> T:
        """Run `work` in a transaction, and return its result after the commit.

        Then `committed` is called with the result, even if the caller has given up. If `work` raises, nothing is
        written and the error is raised. Raises UNAVAILABLE if the database fails.
        """
        if self._closed or self._stuck:
            raise store_unavailable()
        loop = asyncio.get_running_loop()
        job = _Job(work, loop.create_future(), committed)
        self._waiting.append(job)
        self._ensure_running(loop)
        result: T = await job.done
        return result

    async def run_exclusive(self, work: Callable[[], bool]) -> bool:
        """Run `work` in the commit thread between two groups, outside any transaction, while writers wait.

        Returns the result of `work`, or False if the database fails.
        """
        if self._closed or self._stuck:
            raise store_unavailable()
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
        if self._busy:
            self._idle = asyncio.Event()
            await self._idle.wait()
        self._commits.put(None)
        self._thread.join()
        return True

    def _ensure_running(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._busy:
            self._busy = True
            self._schedule(loop)

    def _next(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        if self._exclusive:
            self._run_alone(loop, *self._exclusive.popleft())
            return
        if not self._waiting:
            self._busy = False
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
            self._fail_waiting()
            self._schedule(loop)
            return
        self._run_group(loop)

    def _run_alone(
        self, loop: asyncio.AbstractEventLoop, work: Callable[[], bool], done: asyncio.Future[bool]
    ) -> None:
        def finished(outcome: bool) -> None:
            if not done.done():
                done.set_result(outcome)
            self._schedule(loop)

        self._commits.put(lambda: loop.call_soon_threadsafe(finished, _succeeds(work)))

    def _run_group(self, loop: asyncio.AbstractEventLoop) -> None:
        before = self._connection.total_changes
        while self._waiting and len(self._group) < _LARGEST_GROUP:
            if not self._run_job(self._waiting.popleft()):
                self._schedule(loop)
                return
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
        if job.done.done():  # the caller gave up
            return True
        before = self._connection.total_changes
        try:
            self._group.append((job, job.work()))
        except Exception as error:
            broken = _is_broken(error)
            _fail(job, store_unavailable() if broken else error)
            if not broken and self._connection.total_changes == before:
                return True
            self._abandon_group(error if broken else None)
            return False
        return True

    def _abandon_group(self, error: Exception | None) -> None:
        group, self._group = self._group, []
        _rollback(self._connection)
        if error is None:  # only one job failed, so run the others again
            self._waiting.extendleft(job for job, _ in reversed(group))
            return
        _log.error("the database failed: %s", error)
        for job, _ in group:
            _fail(job, store_unavailable())

    def _end_group(self, loop: asyncio.AbstractEventLoop, error: Exception | None) -> None:
        group, self._group = self._group, []
        self._stuck = False
        if error:
            _log.error("a commit failed: %s", error)
        for job, result in group:
            if error:
                _fail(job, store_unavailable())
                continue
            if not job.done.done():
                job.done.set_result(result)
            if job.committed:
                job.committed(result)
        self._schedule(loop)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon(self._next, loop, loop.time() + self._timeout)

    def _overdue(self) -> None:
        _log.error("a commit takes more than %s s", self._timeout)
        self._stuck = True
        for job, _ in self._group:
            _fail(job, store_unavailable())
        self._fail_waiting()

    def _fail_waiting(self) -> None:
        while self._waiting:
            _fail(self._waiting.popleft(), store_unavailable())


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
    if not job.done.done():
        job.done.set_exception(error)
