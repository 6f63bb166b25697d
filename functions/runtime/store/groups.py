"""Joining transactions into groups, and planning a group. The adapters of databases on a server use it.

Of several transactions that race for a key, a database commits one and refuses the others. A hundred buyers of one
product would therefore need some five thousand attempts, and queueing them would cost a round trip for each. So
transactions of one process that touch the same keys are joined. While one group is being committed, transactions that
touch any of its keys wait, and then form the next group together. Transactions without a common key run concurrently
and are never joined.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import Context, copy_context
from datetime import datetime
from typing import Any

from events.outbox import OutboxRow
from functions.runtime.errors import ServiceError
from functions.runtime.store.codec import CodecRegistry, decode_keys, micros
from functions.runtime.store.planning import IdempotencyRow, Plan, Request, Stored, Write, plan_or_replay
from functions.runtime.store.port import IndexKey, Ref, store_unavailable

LARGEST_GROUP = 32
"""The maximum number of transactions in a group."""


class Job:
    """One transaction: its request, the keys that it touches, and its future result."""

    def __init__(self, request: Request, keys: Iterable[str], deadline: float) -> None:
        self.request = request
        self.keys = frozenset(keys)
        self.deadline = deadline
        self.context: Context = copy_context()  # so that log lines of `change` have the caller's context
        self.outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        """Set the error, unless the caller has given up."""
        if not self.outcome.done():
            self.outcome.set_exception(error)

    def succeed(self, result: Any) -> None:
        """Set the result, unless the caller has given up."""
        if not self.outcome.done():
            self.outcome.set_result(result)


class Groups:
    """Joins jobs into groups, and runs each group with `run_group`.

    `run_group` commits jobs as one transaction, sets their outcomes, and returns the jobs that did not fit into it. If
    it raises, its jobs fail with the error. A group that raises one of `refusals` is divided: each job runs alone.
    """

    def __init__(
        self, run_group: Callable[[Sequence[Job]], Awaitable[Sequence[Job]]], refusals: tuple[type[Exception], ...] = ()
    ) -> None:
        self._run_group = run_group
        self._refusals = refusals
        self._waiting: deque[Job] = deque()
        self._busy: set[str] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    async def run(self, job: Job) -> Any:
        """Run a job and return its result. Raises UNAVAILABLE if the job has not begun by its deadline.

        If the caller is cancelled while the job waits, the job is withdrawn. A job that has begun is completed.
        """
        if self._closed:
            raise store_unavailable("The store is closed.")
        self._waiting.append(job)
        self._start()
        try:
            await asyncio.wait([job.outcome], timeout=job.deadline - asyncio.get_running_loop().time())
        except asyncio.CancelledError:
            job.outcome.cancel()
            raise
        if not job.outcome.done() and job in self._waiting:
            self._waiting.remove(job)
            raise _overdue()
        return await job.outcome

    async def close(self) -> None:
        """Refuse later jobs, and finish the accepted jobs."""
        self._closed = True
        while self._running:
            await asyncio.wait(self._running)

    def _start(self) -> None:
        """Start every group that can run. Jobs with a common key run in the order of their arrival."""
        taken = set(self._busy)
        groups: list[list[Job]] = []
        owners: dict[str, list[Job]] = {}
        left: deque[Job] = deque()
        for job in self._waiting:
            if job.outcome.done():  # the caller has given up
                continue
            wanted = {id(owners[key]): owners[key] for key in job.keys if key in owners}
            group = next(iter(wanted.values()), None)
            if taken & job.keys or len(wanted) > 1 or (group and len(group) >= LARGEST_GROUP):
                left.append(job)
                taken |= job.keys  # later jobs must not overtake this job
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
            task = asyncio.create_task(self._run_task(group, keys))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run_task(self, group: Sequence[Job], keys: frozenset[str]) -> None:
        left = await self._attempt(group)
        self._busy -= keys
        now = asyncio.get_running_loop().time()
        for job in reversed(left):
            if job.deadline > now:
                self._waiting.appendleft(job)
            else:
                job.fail(_overdue())
        self._start()

    async def _attempt(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Run these jobs as one group. Never raises, except when it is cancelled."""
        try:
            return await self._run_group(jobs)
        except self._refusals as error:
            if len(jobs) > 1:
                return [left for job in jobs for left in await self._attempt([job])]
            jobs[0].fail(error)
        except ServiceError as error:
            for job in jobs:  # a copy for each job, because raising an exception changes it
                job.fail(ServiceError(error.code, error.reason, error.message))
        except BaseException as error:
            for job in jobs:
                job.fail(error)
            if not isinstance(error, Exception):
                raise
        return ()


def _overdue() -> Exception:
    return store_unavailable("Too many transactions want to change the same entity at the moment.")


class Draft:
    """A group of transactions that is merged into one. Each job sees the pending writes of the jobs before it.

    `entities` and `records` are the rows read; expired ones count as absent. `room` is the maximum number of items of
    the merged transaction: entities, index entries, outbox rows and records. After the jobs were added, `outbox` and
    `records` are the rows to insert, and `writes` returns the rest.
    """

    def __init__(
        self,
        codecs: CodecRegistry,
        entities: Mapping[Ref, Stored],
        records: Mapping[str, IdempotencyRow],
        now: datetime,
        epoch: int,
        room: int | None = None,
    ) -> None:
        self._codecs = codecs
        self._found = entities
        self._found_records = records
        self._now = now
        self._due = micros(now)
        self._epoch = epoch
        self._room = room
        self._entities: dict[Ref, Stored] = {}  # pending writes, as the next job sees them
        self._touched: set[Ref] = set()
        self._read: dict[Ref, None] = {}  # refs of all jobs that write anything
        self._size = 0
        self.records: dict[str, IdempotencyRow] = {}
        self.outbox: list[OutboxRow] = []
        self.outcomes: list[tuple[Job, Any, Exception | None]] = []

    def add(self, job: Job) -> bool:
        """Call the job's `change` and add its writes. Returns False, and adds nothing, if there is no room for them.

        The job's outcome is set after the commit, because it may depend on earlier jobs in the group.
        """
        try:
            planned = job.context.run(
                plan_or_replay, self._codecs, job.request, self._find_record, self._find, self._now, self._epoch
            )
        except Exception as error:
            self.outcomes.append((job, None, error))
            return True
        if planned.writes or planned.outbox or planned.record:
            size = _size(planned) + len(job.request.refs)
            if self._room is not None and self._size and self._size + size > self._room:
                return False
            self._size += size
            self._keep(job.request, planned)
        self.outcomes.append((job, planned.result, None))
        return True

    def writes(self) -> Iterator[tuple[Ref, Write | None]]:
        """Yield each entity that the group read and its write, or None for an entity that must only be unchanged."""
        for ref in self._read:
            before, after = self._found.get(ref), self._entities.get(ref)
            if ref in self._touched and (before or after):
                yield ref, _merged(self._codecs.of(ref.type).name, ref.id, before, after)
            else:
                yield ref, None

    def settle(self) -> None:
        """Set the outcomes of the jobs, after the commit."""
        for job, result, error in self.outcomes:
            if error:
                job.fail(error)
            else:
                job.succeed(result)

    def _keep(self, request: Request, planned: Plan) -> None:
        self._read.update(dict.fromkeys(request.refs))
        for write in planned.writes:
            ref = Ref(self._codecs.by_name[write.kind].mapping.type, write.id)
            self._touched.add(ref)
            if write.new:
                self._entities[ref] = write.new
            else:
                self._entities.pop(ref, None)
        if planned.record:
            self.records[planned.record.key] = planned.record
        self.outbox += planned.outbox

    def _find_record(self, key: str) -> IdempotencyRow | None:
        return self.records.get(key) or self._found_records.get(key)

    def _find(self, ref: Ref) -> Stored | None:
        if ref in self._touched:
            return self._entities.get(ref)
        stored = self._found.get(ref)
        return None if stored is None or stored.is_over(self._due) else stored


def entries_of(stored: Stored | None) -> list[IndexKey]:
    """Return the index entries of a stored entity, or none if it is absent."""
    return decode_keys(stored.keys) if stored else []


def _merged(kind: str, entity_id: str, before: Stored | None, after: Stored | None) -> Write:
    """Return a single write with the effect of all writes of the group.

    `before` is the entity's state before them, `after` the state after them.
    """
    old, new = set(entries_of(before)), set(entries_of(after))
    return Write(kind, entity_id, before, after, sorted(new - old), sorted(old - new))


def _size(planned: Plan) -> int:
    """Return an upper bound of the number of items. It counts all index entries, as all may have to be rewritten."""
    return sum(map(_entries, planned.writes)) + len(planned.outbox) + (planned.record is not None)


def _entries(write: Write) -> int:
    return len(entries_of(write.new)) + len(write.removed)
