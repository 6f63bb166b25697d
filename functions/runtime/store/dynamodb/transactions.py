"""Transactions on DynamoDB: joining them into groups, and planning and sending the actions of a group.

Of several transactions that race for a key, DynamoDB commits one and refuses the others. A hundred buyers of one
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
from uuid import uuid4

from events.outbox import OutboxRow
from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError
from functions.runtime.store.codec import CodecRegistry, micros
from functions.runtime.store.dynamodb import layout
from functions.runtime.store.dynamodb.client import LostRace, Refused
from functions.runtime.store.dynamodb.layout import Item
from functions.runtime.store.dynamodb.table import Table
from functions.runtime.store.planning import IdempotencyRow, Plan, Request, Stored, Write, plan_once
from functions.runtime.store.port import Ref, store_unavailable
from observability.failpoints import failpoint

LARGEST_GROUP = 32
"""The maximum number of transactions in a group. DynamoDB allows a hundred items, so more would rarely fit."""


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

    `run_group` sets the outcomes of its jobs, and returns the jobs that did not fit into the transaction. It never
    raises.
    """

    def __init__(self, run_group: Callable[[Sequence[Job]], Awaitable[Sequence[Job]]]) -> None:
        self._run_group = run_group
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
        left = await self._run_group(group)
        self._busy -= keys
        now = asyncio.get_running_loop().time()
        for job in reversed(left):
            if job.deadline > now:
                self._waiting.appendleft(job)
            else:
                job.fail(_overdue())
        self._start()


def _overdue() -> Exception:
    return store_unavailable("Too many transactions want to change the same entity at the moment.")


Action = dict[str, Any]
LARGEST = 100
"""The maximum number of actions in one DynamoDB transaction."""
_PACK_BYTES = 200_000  # half of the 400 KB that an item of DynamoDB may have


class TooLarge(ValueError):
    """A transaction touches more items than DynamoDB allows."""


class Actions:
    """Builds the actions (puts, deletes, checks) of one table.

    A `condition` is the attribute `v` of the entity as read, or None if the entity was absent.
    """

    def __init__(self, table: str) -> None:
        self._table = table

    def write(self, write: Write, condition: str | None, token: str) -> Iterator[Action]:
        """Write an entity and its index entries, if the entity is unchanged. `token` identifies the transaction."""
        kind, key, new = write.kind, write.id, write.new
        for entry in write.removed:
            yield self._delete(layout.entry_key(kind, key, entry))
        if new is None:
            yield self._delete(layout.entity_key(kind, key), **_still(condition))
            return
        # Index entries expire with their entity, so all of them are written again if its expiry changes.
        moved = write.old is not None and write.old.expires != new.expires
        for entry in layout.entries_of(new) if moved else write.added:
            yield self._put(layout.entry_item(kind, key, entry, new.expires))
        item = layout.entity_item(kind, key, new, layout.version_of(new.version, token))
        yield self._put(item, **_still(condition))

    def check(self, key: Item, condition: str | None) -> Action:
        """Return a check that an entity is unchanged, for an entity that the transaction only reads."""
        return {"ConditionCheck": {"TableName": self._table, "Key": key, **_still(condition)}}

    def record(self, record: IdempotencyRow, now: datetime) -> Action:
        """Write an idempotency record, if there is none with its key or the existing one has expired."""
        return self._put(
            layout.record_item(record),
            ConditionExpression="attribute_not_exists(pk) OR ex <= :now",
            ExpressionAttributeValues=_number(":now", micros(now)),
        )

    def outbox(self, rows: Sequence[OutboxRow], room: int) -> list[Action]:
        """Write outbox rows: each in a separate item if `room` is large enough, otherwise several in one item."""
        return [self._put(layout.outbox_item(pack), **_still(None)) for pack in _packs(rows, room)]

    def removal(self, item: Item) -> list[Action]:
        """Remove an entity and its index entries, if the entity is unchanged."""
        kind, entity_id = item["pk"]["S"].split("#", 2)[1:]
        stored = layout.stored_of(item)
        write = Write(kind, entity_id, stored, None, (), layout.entries_of(stored))
        return list(self.write(write, item["v"]["S"], ""))

    def record_removal(self, key: Item, due: int) -> list[Action]:
        """Remove an idempotency record if it has expired by `due`; it may have been written again since it was read."""
        condition = "attribute_not_exists(pk) OR ex <= :due"
        return [
            self._delete(key, ConditionExpression=condition, ExpressionAttributeValues=_number(":due", due))
        ]

    def _put(self, item: Item, **condition: Any) -> Action:
        return {"Put": {"TableName": self._table, "Item": item, **condition}}

    def _delete(self, key: Item, **condition: Any) -> Action:
        return {"Delete": {"TableName": self._table, "Key": key, **condition}}


def merged(kind: str, entity_id: str, before: Stored | None, after: Stored | None) -> Write:
    """Return the one write that takes an entity from `before` the group's writes to `after` them."""
    old, new = set(layout.entries_of(before)), set(layout.entries_of(after))
    return Write(kind, entity_id, before, after, sorted(new - old), sorted(old - new))


def _packs(rows: Sequence[OutboxRow], room: int) -> list[list[OutboxRow]]:
    if len(rows) <= room:
        return [[row] for row in rows]
    packs: list[list[OutboxRow]] = []
    size = 0
    for row in rows:
        if not packs or size + len(row.data) > _PACK_BYTES:
            packs.append([])
            size = 0
        packs[-1].append(row)
        size += len(row.data) + 500
    return packs


def _still(condition: str | None) -> dict[str, Any]:
    if condition is None:
        return {"ConditionExpression": "attribute_not_exists(pk)"}
    return {"ConditionExpression": "v = :v", "ExpressionAttributeValues": {":v": {"S": condition}}}


def _number(name: str, value: int) -> Item:
    return {name: {"N": str(value)}}


class Draft:
    """A group of transactions that is merged into one. Each job sees the pending writes of the jobs before it.

    `items` are the items read, by `pk`, without expired entities.
    """

    def __init__(self, codecs: CodecRegistry, items: Mapping[str, Item], now: datetime, epoch: int) -> None:
        self._codecs = codecs
        self._items = items
        self._now = now
        self._epoch = epoch
        self._entities: dict[Ref, Stored] = {}  # pending writes, as the next job sees them
        self._touched: set[Ref] = set()
        self._read: dict[Ref, None] = {}  # refs of all jobs that write anything
        self._records: dict[str, IdempotencyRow] = {}
        self._size = 0
        self.outbox: list[OutboxRow] = []
        self.outcomes: list[tuple[Job, Any, Exception | None]] = []

    def add(self, job: Job) -> bool:
        """Call the job's `change` and add its writes. Returns False, and adds nothing, if there is no room for them.

        The job's outcome is set after the commit, because it may depend on earlier jobs in the group.
        """
        try:
            planned = job.context.run(
                plan_once, self._codecs, job.request, self._find_record, self._find, self._now, self._epoch
            )
        except Exception as error:
            self.outcomes.append((job, None, error))
            return True
        if planned.writes or planned.outbox or planned.record:
            size = _size(planned) + len(job.request.refs)
            if self._size and self._size + size > LARGEST:
                return False
            self._size += size
            self._keep(job.request, planned)
        self.outcomes.append((job, planned.result, None))
        return True

    def actions(self, make: Actions) -> list[Action]:
        """Return the actions of the whole group. Raises TooLarge."""
        token = uuid4().hex
        actions: list[Action] = []
        for ref in self._read:
            kind, before, after = self._codecs.of(ref.type).name, self._before(ref), self._entities.get(ref)
            condition = self._mark(ref)
            if ref in self._touched and (before or after):
                actions += make.write(merged(kind, ref.id, before, after), condition, token)
            else:
                actions.append(make.check(self._key(ref), condition))
        actions += [make.record(record, self._now) for record in self._records.values()]
        actions += make.outbox(self.outbox, LARGEST - len(actions))
        if len(actions) > LARGEST:
            raise TooLarge(f"this transaction has {len(actions)} items, and DynamoDB allows {LARGEST}")
        return actions

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
            self._records[planned.record.key] = planned.record
        self.outbox += planned.outbox

    def _find_record(self, key: str) -> IdempotencyRow | None:
        item = self._items.get(layout.record_key(key)["pk"]["S"])
        return self._records.get(key) or (layout.record_of(key, item) if item else None)

    def _find(self, ref: Ref) -> Stored | None:
        return self._entities.get(ref) if ref in self._touched else self._before(ref)

    def _before(self, ref: Ref) -> Stored | None:
        item = self._items.get(self._key(ref)["pk"]["S"])
        return layout.stored_of(item) if item else None

    def _mark(self, ref: Ref) -> str | None:
        item = self._items.get(self._key(ref)["pk"]["S"])
        return str(item["v"]["S"]) if item else None

    def _key(self, ref: Ref) -> Item:
        return layout.entity_key(self._codecs.of(ref.type).name, ref.id)


def _size(planned: Plan) -> int:
    """Return an upper bound of the number of actions. It counts all index entries, as all may have to be rewritten."""
    return sum(map(_entries, planned.writes)) + len(planned.outbox) + (planned.record is not None)


def _entries(write: Write) -> int:
    return len(layout.entries_of(write.new)) + len(write.removed)


Committed = Callable[[Sequence[OutboxRow], Sequence[Action]], None]


class Writer:
    """Commits groups of transactions to one table, and calls `committed` after each commit."""

    def __init__(self, table: Table, codecs: CodecRegistry, clock: Clock, committed: Committed) -> None:
        self.actions = Actions(table.name)
        self._table = table
        self._codecs = codecs
        self._clock = clock
        self._committed = committed

    def keys(self, request: Request) -> list[str]:
        """Return the `pk`s of the items that a transaction reads: its refs and its idempotency record."""
        return [key["pk"]["S"] for key in self._keys(request)]

    async def run(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Commit these jobs as one transaction and set their outcomes. Returns the jobs that did not fit into it."""
        try:
            return await self._run(jobs)
        except (Refused, TooLarge) as error:
            if len(jobs) == 1:
                jobs[0].fail(error)
                return ()
            return [left for job in jobs for left in await self.run([job])]  # run each job alone
        except ServiceError as error:
            for job in jobs:  # a copy for each job, because raising an exception changes it
                job.fail(ServiceError(error.code, error.reason, error.message))
        except BaseException as error:
            for job in jobs:
                job.fail(error)
            if not isinstance(error, Exception):
                raise
        return ()

    async def remove(self, removals: Sequence[Sequence[Action]], deadline: float) -> int:
        """Carry out these removals. Each is atomic and independent of the others.

        Returns the number of removals whose conditions held.
        """
        groups: list[list[Sequence[Action]]] = []
        size = LARGEST
        for removal in removals:
            if size + len(removal) > LARGEST:
                groups.append([])
                size = 0
            groups[-1].append(removal)
            size += len(removal)
        return sum(await asyncio.gather(*(self._remove_group(group, deadline) for group in groups)))

    async def _run(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Read, plan and commit, and repeat this after a lost race.

        The reads are not a snapshot, but the conditions of the transaction ensure that nothing has changed since them.
        If a `change` is alone in its group and raises or writes nothing, there is no transaction to check this: it has
        seen each entity as it was at some moment of the call.
        """
        deadline = await self._table.begin()
        lost = 0
        while True:
            try:
                draft, left = await self._draft(jobs, deadline)
                actions = draft.actions(self.actions)
                if actions:
                    failpoint("dynamodb.commit.before")
                    await self._table.transact(actions, deadline)
                    failpoint("dynamodb.commit.after")
                    self._committed(draft.outbox, actions)
            except LostRace as error:
                await self._table.pause(lost, deadline, error, unlimited=True)
                lost += 1
                continue
            for job, result, refusal in draft.outcomes:
                if refusal:
                    job.fail(refusal)
                else:
                    job.succeed(result)
            return left

    async def _draft(self, jobs: Sequence[Job], deadline: float) -> tuple[Draft, Sequence[Job]]:
        now = self._clock.now()
        keys = [key for job in jobs for key in self._keys(job.request)]
        items, epoch = await asyncio.gather(self._table.read(keys, deadline), self._table.epoch(deadline))
        # Expired entities are removed at once, so that a new one begins at version 1; the draft ignores expired
        # records.
        over = [item for item in items.values() if item["sk"]["S"] == "e" and layout.is_over(item, now)]
        if over and await self.remove([self.actions.removal(item) for item in over], deadline) < len(over):
            raise LostRace
        for item in over:
            del items[item["pk"]["S"]]
        draft = Draft(self._codecs, items, now, epoch)
        for number, job in enumerate(jobs):
            if not draft.add(job):
                return draft, jobs[number:]
        return draft, ()

    async def _remove_group(self, group: Sequence[Sequence[Action]], deadline: float) -> int:
        try:
            await self._table.transact([action for removal in group for action in removal], deadline)
        except LostRace:
            if len(group) == 1:
                return 0
            return sum([await self._remove_group([removal], deadline) for removal in group])
        return len(group)

    def _keys(self, request: Request) -> list[Item]:
        keys = [layout.entity_key(self._codecs.of(ref.type).name, ref.id) for ref in request.refs]
        return [*keys, layout.record_key(request.idempotency.key)] if request.idempotency else keys
