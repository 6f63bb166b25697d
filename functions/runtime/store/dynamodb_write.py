"""Transactions on DynamoDB: reads what a group needs, and commits what becomes of it."""

from __future__ import annotations

from asyncio import gather
from collections.abc import Callable, Sequence

from events.outbox import OutboxRow
from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError
from functions.runtime.store import dynamodb_layout as layout
from functions.runtime.store.codec import CodecRegistry
from functions.runtime.store.dynamodb_actions import LARGEST, Action, Actions, TooLarge, is_over
from functions.runtime.store.dynamodb_draft import Draft
from functions.runtime.store.dynamodb_errors import LostRace, Refused
from functions.runtime.store.dynamodb_groups import Job
from functions.runtime.store.dynamodb_layout import Item
from functions.runtime.store.dynamodb_table import Table
from functions.runtime.store.planning import Request
from observability.failpoints import failpoint

Committed = Callable[[Sequence[OutboxRow], Sequence[Action]], None]


class Writer:
    """Writes transactions of one table, and tells `committed` of each that was."""

    def __init__(self, table: Table, codecs: CodecRegistry, clock: Clock, committed: Committed) -> None:
        self.actions = Actions(table.name)
        self._table = table
        self._shapes = codecs
        self._clock = clock
        self._committed = committed

    def keys(self, request: Request) -> list[str]:
        """The `pk`s of all that a transaction reads: the refs, and the guard."""
        return [key["pk"]["S"] for key in self._keys(request)]

    async def run(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Do these as one transaction and answer them, but for those returned, which had no room in it."""
        try:
            return await self._run(jobs)
        except (Refused, TooLarge) as error:
            if len(jobs) == 1:
                jobs[0].fail(error)
                return ()
            return [left for job in jobs for left in await self.run([job])]  # whose fault is it?
        except ServiceError as error:
            for job in jobs:  # each its own, since raising changes an exception
                job.fail(ServiceError(error.code, error.reason, error.message))
        except BaseException as error:
            for job in jobs:
                job.fail(error)
            if not isinstance(error, Exception):
                raise
        return ()

    async def remove(self, removals: Sequence[Sequence[Action]], deadline: float) -> int:
        """Do these, each in one piece and independent of the others; how many were still so that they could be."""
        groups: list[list[Sequence[Action]]] = []
        size = LARGEST
        for removal in removals:
            if size + len(removal) > LARGEST:
                groups.append([])
                size = 0
            groups[-1].append(removal)
            size += len(removal)
        return sum(await gather(*(self._remove_group(group, deadline) for group in groups)))

    async def _run(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Only what is written rests on proof that all was so at one moment.

        The reads are not of one moment, the condition of the transaction is. A `change` that refuses, or wants nothing
        written, and is alone, has read each entity as it was at some moment of the call.
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
                await self._table.pause(lost, deadline, error, patiently=True)
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
        items, epoch = await gather(self._table.read(keys, deadline), self._table.epoch(deadline))
        # Guards that are over stay: the draft knows. Entities go at once, so that a new one starts afresh.
        over = [item for item in items.values() if item["sk"]["S"] == "e" and is_over(item, now)]
        if over and await self.remove([self.actions.removal(item) for item in over], deadline) < len(over):
            raise LostRace
        for item in over:
            del items[item["pk"]["S"]]
        draft = Draft(self._shapes, items, now, epoch)
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
        keys = [layout.entity_key(self._shapes.of(ref.type).name, ref.id) for ref in request.refs]
        return [*keys, layout.record_key(request.idempotency.key)] if request.idempotency else keys
