"""Transactions on DynamoDB: the actions of a group of transactions, and their commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from events.outbox import OutboxRow
from functions.runtime.clock import Clock
from functions.runtime.store.codec import CodecRegistry, micros
from functions.runtime.store.dynamodb import layout
from functions.runtime.store.dynamodb.client import LostRace
from functions.runtime.store.dynamodb.layout import Item
from functions.runtime.store.dynamodb.table import Table
from functions.runtime.store.groups import Draft, Job, entries_of
from functions.runtime.store.planning import IdempotencyRow, Request, Write
from functions.runtime.store.port import Ref
from observability.failpoints import failpoint

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
        """Yield the actions that write an entity and its index entries, if the entity is unchanged.

        `token` identifies the transaction.
        """
        kind, key, new = write.kind, write.id, write.new
        for entry in write.removed:
            yield self._delete(layout.entry_key(kind, key, entry))
        if new is None:
            yield self._delete(layout.entity_key(kind, key), **_still(condition))
            return
        # Index entries expire with their entity, so all of them are written again if its expiry changes.
        moved = write.old is not None and write.old.expires != new.expires
        for entry in entries_of(new) if moved else write.added:
            yield self._put(layout.entry_item(kind, key, entry, new.expires))
        item = layout.entity_item(kind, key, new, layout.version_of(new.version, token))
        yield self._put(item, **_still(condition))

    def check(self, key: Item, condition: str | None) -> Action:
        """Return a check that an entity is unchanged, for an entity that the transaction only reads."""
        return {"ConditionCheck": {"TableName": self._table, "Key": key, **_still(condition)}}

    def record(self, record: IdempotencyRow, now: datetime) -> Action:
        """Return the action that writes an idempotency record.

        Its condition is that no record with this key exists, or that the existing record has expired.
        """
        return self._put(
            layout.record_item(record),
            ConditionExpression="attribute_not_exists(pk) OR ex <= :now",
            ExpressionAttributeValues=_number(":now", micros(now)),
        )

    def outbox(self, rows: Sequence[OutboxRow], room: int) -> list[Action]:
        """Return the actions that write outbox rows.

        `room` is the number of items that the transaction may still have. If there is room, each row is a separate
        item; otherwise several rows share an item.
        """
        return [self._put(layout.outbox_item(pack), **_still(None)) for pack in _packs(rows, room)]

    def removal(self, item: Item) -> list[Action]:
        """Return the actions that remove an entity and its index entries, if the entity is unchanged."""
        kind, entity_id = item["pk"]["S"].split("#", 2)[1:]
        stored = layout.stored_of(item)
        write = Write(kind, entity_id, stored, None, (), entries_of(stored))
        return list(self.write(write, item["v"]["S"], ""))

    def record_removal(self, key: Item, due: int) -> list[Action]:
        """Return the action that removes an idempotency record if it has expired by `due` (microseconds since 1970).

        The record may have been written again since it was read.
        """
        condition = "attribute_not_exists(pk) OR ex <= :due"
        return [self._delete(key, ConditionExpression=condition, ExpressionAttributeValues=_number(":due", due))]

    def _put(self, item: Item, **condition: Any) -> Action:
        return {"Put": {"TableName": self._table, "Item": item, **condition}}

    def _delete(self, key: Item, **condition: Any) -> Action:
        return {"Delete": {"TableName": self._table, "Key": key, **condition}}


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

    async def run(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Commit these jobs as one transaction, and set their outcomes. Returns the jobs that did not fit into it.

        Reads, plans and commits, and repeats this after a lost race. The reads are not a snapshot, but the transaction
        fails if an entity has changed since it was read. There is one exception. If a job is alone in its group and its
        `change` raises or writes nothing, there is no transaction. Its `change` may then have seen entities as of
        different moments of the call.
        """
        deadline = await self._table.begin()
        lost = 0
        while True:
            try:
                draft, items, left = await self._draft(jobs, deadline)
                actions = self._actions_of(draft, items)
                if actions:
                    failpoint("dynamodb.commit.before")
                    await self._table.transact(actions, deadline)
                    failpoint("dynamodb.commit.after")
                    self._committed(draft.outbox, actions)
            except LostRace as error:
                await self._table.pause(lost, deadline, error, unlimited=True)
                lost += 1
                continue
            draft.settle()
            return left

    async def _draft(self, jobs: Sequence[Job], deadline: float) -> tuple[Draft, Mapping[str, Item], Sequence[Job]]:
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
        entities, records = {}, {}
        for job in jobs:
            for ref in job.request.refs:
                if found := items.get(self._key(ref)["pk"]["S"]):
                    entities[ref] = layout.stored_of(found)
            record = job.request.idempotency
            if record and (found := items.get(layout.record_key(record.key)["pk"]["S"])):
                records[record.key] = layout.record_of(record.key, found)
        draft = Draft(self._codecs, entities, records, now, epoch, LARGEST)
        for number, job in enumerate(jobs):
            if not draft.add(job):
                return draft, items, jobs[number:]
        return draft, items, ()

    def _actions_of(self, draft: Draft, items: Mapping[str, Item]) -> list[Action]:
        """Return the actions of the whole group. Raises TooLarge."""
        token, make = uuid4().hex, self.actions
        actions: list[Action] = []
        for ref, write in draft.writes():
            key = self._key(ref)
            item = items.get(key["pk"]["S"])
            condition = item["v"]["S"] if item else None
            actions += make.write(write, condition, token) if write else [make.check(key, condition)]
        actions += [make.record(record, self._clock.now()) for record in draft.records.values()]
        actions += make.outbox(draft.outbox, LARGEST - len(actions))
        if len(actions) > LARGEST:
            raise TooLarge(f"this transaction has {len(actions)} items, and DynamoDB allows {LARGEST}")
        return actions

    def _key(self, ref: Ref) -> Item:
        return layout.entity_key(self._codecs.of(ref.type).name, ref.id)

    async def _remove_group(self, group: Sequence[Sequence[Action]], deadline: float) -> int:
        try:
            await self._table.transact([action for removal in group for action in removal], deadline)
        except LostRace:
            if len(group) == 1:
                return 0
            return sum([await self._remove_group([removal], deadline) for removal in group])
        return len(group)

    def _keys(self, request: Request) -> list[Item]:
        keys = [self._key(ref) for ref in request.refs]
        return [*keys, layout.record_key(request.idempotency.key)] if request.idempotency else keys
