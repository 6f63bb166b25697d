"""Group commit: transactions that want the same things at the same time become one.

DynamoDB settles races by refusing all but one, so a hundred buyers of one product would try five thousand times;
queueing them would cost a round trip each. Those of one process are therefore joined: while one group is on its way,
who wants any of its things waits, and all of those together make the next. What has nothing in common goes side by
side, and is never joined.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import Context, copy_context
from typing import Any

from functions.runtime.errors import unavailable
from functions.runtime.store.planning import Request

LARGEST = 32
"""Transactions in a group. A hundred items is all that DynamoDB takes, so rarely more would fit."""


class Job:
    """One transaction: what is asked for, the keys of all that it touches, and its answer to come."""

    def __init__(self, request: Request, keys: Iterable[str], deadline: float) -> None:
        self.request = request
        self.keys = frozenset(keys)
        self.deadline = deadline
        self.context: Context = copy_context()  # so that what `change` logs is its caller's
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        """Answer with an error, unless nobody waits any more."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def succeed(self, result: Any) -> None:
        """Answer."""
        if not self.answer.done():
            self.answer.set_result(result)


class Groups:
    """Joins jobs and runs each group by `run`, which answers its jobs, but for those that it returns: they had no room.

    `run` raises nothing.
    """

    def __init__(self, run: Callable[[Sequence[Job]], Awaitable[Sequence[Job]]]) -> None:
        self._run = run
        self._waiting: deque[Job] = deque()
        self._busy: set[str] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    async def do(self, job: Job) -> Any:
        """The job's answer; raises UNAVAILABLE when its turn has not come by its deadline.

        A caller that is cancelled while the job waits takes it back; later, it is done all the same.
        """
        if self._closed:
            raise unavailable("STORE_UNAVAILABLE", "The store is closed.")
        self._waiting.append(job)
        self._start()
        try:
            await asyncio.wait([job.answer], timeout=job.deadline - asyncio.get_running_loop().time())
        except asyncio.CancelledError:
            job.answer.cancel()
            raise
        if not job.answer.done() and job in self._waiting:
            self._waiting.remove(job)
            raise _overdue()
        return await job.answer

    async def close(self) -> None:
        """Take no more, and finish what there is."""
        self._closed = True
        while self._running:
            await asyncio.wait(self._running)

    def _start(self) -> None:
        """Start all groups that can be; first come, first served for each key."""
        taken = set(self._busy)
        groups: list[list[Job]] = []
        owners: dict[str, list[Job]] = {}
        left: deque[Job] = deque()
        for job in self._waiting:
            if job.answer.done():  # its caller gave up
                continue
            wanted = {id(owners[key]): owners[key] for key in job.keys if key in owners}
            group = next(iter(wanted.values()), None)
            if taken & job.keys or len(wanted) > 1 or (group and len(group) >= LARGEST):
                left.append(job)
                taken |= job.keys  # whoever comes after must not overtake
                continue
            if group is None:
                group = []
                groups.append(group)
            group.append(job)
            owners.update(dict.fromkeys(job.keys, group))
        self._waiting = left
        for group in groups:
            keys = frozenset[str]().union(*(job.keys for job in group))
            self._busy |= keys
            task = asyncio.create_task(self._run_group(group, keys))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run_group(self, group: Sequence[Job], keys: frozenset[str]) -> None:
        left = await self._run(group)
        self._busy -= keys
        now = asyncio.get_running_loop().time()
        for job in reversed(left):
            if job.deadline > now:
                self._waiting.appendleft(job)
            else:
                job.fail(_overdue())
        self._start()


def _overdue() -> Exception:
    return unavailable("STORE_UNAVAILABLE", "Too many want to change the same at the moment.")
