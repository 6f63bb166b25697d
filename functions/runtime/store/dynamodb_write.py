"""Transactions on DynamoDB: what is read for them, and the actions that they become."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

from events.outbox import OutboxRow
from functions.runtime.clock import Clock
from functions.runtime.store import dynamodb_layout as layout
from functions.runtime.store.codec import Shapes, micros
from functions.runtime.store.dynamodb_client import LostRace
from functions.runtime.store.dynamodb_layout import Item
from functions.runtime.store.dynamodb_table import Table
from functions.runtime.store.planning import Plan, Request, Stored, Write, plan, replay
from functions.runtime.store.port import Ref

Action = dict[str, Any]
LARGEST = 100
"""Actions of one transaction of DynamoDB."""
_PACK_BYTES = 200_000  # of DynamoDB's 400 KB for an item


class TooLarge(ValueError):
    """A transaction wants to touch more items than DynamoDB can change at once."""


class Seen(NamedTuple):
    """What one transaction found: the entities and, for the conditions, their version marks (None: absent)."""

    entities: dict[Ref, Stored]
    marks: dict[str, str | None]


class Writer:
    """Reads, plans and writes transactions of one table."""

    def __init__(self, table: Table, shapes: Shapes, clock: Clock) -> None:
        self._table = table
        self._shapes = shapes
        self._clock = clock

    def keys(self, request: Request) -> list[Item]:
        """The keys of all that a transaction reads: the refs in order, then the guard."""
        keys = [layout.entity_key(self._shapes.of(ref.type).name, ref.id) for ref in request.refs]
        return [*keys, layout.guard_key(request.once.key)] if request.once else keys

    async def attempt(self, request: Request, deadline: float) -> tuple[Plan, list[Action]]:
        """Read, run `change`, and say what to write: no actions for a replay, or when nothing changes.

        The refs are not read at one moment; that they were all so at the end is a condition of the transaction. Only a
        `change` that refuses, or wants nothing written, has no such proof.
        """
        now = self._clock.now()
        items = await self._table.read(self.keys(request), deadline)
        if request.once:
            guard = items.get(layout.guard_key(request.once.key)["pk"]["S"])
            found = layout.guard_of(request.once.key, guard) if guard else None
            done, answer = replay(request.once, found, now)
            if done:
                return Plan(answer, (), (), None), []
        seen = await self._seen(request.refs, items, now, deadline)
        planned = plan(self._shapes, request, seen.entities, now)
        return planned, self._actions(planned, seen, now)

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
        return sum(await asyncio.gather(*(self._remove_group(group, deadline) for group in groups)))

    def removal(self, item: Item) -> list[Action]:
        """The actions that remove an entity (its item) with its index entries, if it is still the same."""
        kind, entity_id = item["pk"]["S"].split("#", 2)[1:]
        write = Write(
            kind, entity_id, layout.stored_of(item), None, (), layout.entries_of(layout.stored_of(item))
        )
        return list(self._entity(write, item["v"]["S"], ""))

    def guard_removal(self, key: Item, due: int) -> list[Action]:
        """The action that removes a guard, if it has not been put anew in the meantime."""
        condition = "attribute_not_exists(pk) OR ex <= :due"
        return [
            self._delete(key, ConditionExpression=condition, ExpressionAttributeValues=_number(":due", due))
        ]

    async def _remove_group(self, group: Sequence[Sequence[Action]], deadline: float) -> int:
        try:
            await self._table.transact([action for removal in group for action in removal], deadline)
        except LostRace:
            if len(group) == 1:
                return 0
            return sum([await self._remove_group([removal], deadline) for removal in group])
        return len(group)

    async def _seen(
        self, refs: Iterable[Ref], items: dict[str, Item], now: datetime, deadline: float
    ) -> Seen:
        entities: dict[Ref, Stored] = {}
        marks: dict[str, str | None] = {}
        over: list[Sequence[Action]] = []
        for ref in dict.fromkeys(refs):
            pk = layout.entity_key(self._shapes.of(ref.type).name, ref.id)["pk"]["S"]
            item = items.get(pk)
            marks[pk] = None
            if item is None:
                continue
            stored = layout.stored_of(item)
            if is_over(item, now):
                over.append(self.removal(item))
            else:
                entities[ref], marks[pk] = stored, item["v"]["S"]
        if over and await self.remove(over, deadline) < len(over):
            raise LostRace
        return Seen(entities, marks)

    def _actions(self, planned: Plan, seen: Seen, now: datetime) -> list[Action]:
        if not (planned.writes or planned.outbox or planned.guard):
            return []
        token = uuid4().hex
        marks = dict(seen.marks)
        actions: list[Action] = []
        for write in planned.writes:
            mark = marks.pop(layout.entity_key(write.kind, write.id)["pk"]["S"])
            actions += self._entity(write, mark, token)
        for pk, mark in marks.items():
            key = {"pk": {"S": pk}, "sk": {"S": "e"}}
            actions.append({"ConditionCheck": {"TableName": self._table.name, "Key": key, **_still(mark)}})
        if planned.guard:
            condition = {
                "ConditionExpression": "attribute_not_exists(pk) OR ex <= :now",
                "ExpressionAttributeValues": _number(":now", micros(now)),
            }
            actions.append(self._put(layout.guard_item(planned.guard), **condition))
        packs = _packs(planned.outbox, LARGEST - len(actions))
        actions += [self._put(layout.outbox_item(pack), **_still(None)) for pack in packs]
        if len(actions) > LARGEST:
            raise TooLarge(f"this transaction has {len(actions)} items, and DynamoDB allows {LARGEST}")
        return actions

    def _entity(self, write: Write, mark: str | None, token: str) -> Iterator[Action]:
        kind, key, new = write.kind, write.id, write.new
        for entry in write.removed:
            yield self._delete(layout.entry_key(kind, key, entry))
        if new is None:
            yield self._delete(layout.entity_key(kind, key), **_still(mark))
            return
        # Entries end with their entity: when that moves, all of them are written anew.
        moved = write.old is not None and write.old.expires != new.expires
        for entry in layout.entries_of(new) if moved else write.added:
            yield self._put(layout.entry_item(kind, key, entry, new.expires))
        item = layout.entity_item(kind, key, new, layout.version_of(new.version, token))
        yield self._put(item, **_still(mark))

    def _put(self, item: Item, **condition: Any) -> Action:
        return {"Put": {"TableName": self._table.name, "Item": item, **condition}}

    def _delete(self, key: Item, **condition: Any) -> Action:
        return {"Delete": {"TableName": self._table.name, "Key": key, **condition}}


def is_over(item: Item, now: datetime) -> bool:
    """Whether its time is over, although DynamoDB may take days to remove it."""
    expires = layout.expiry_of(item)
    return expires is not None and expires <= micros(now)


def _packs(rows: Sequence[OutboxRow], room: int) -> list[list[OutboxRow]]:
    """The rows, each by itself where there is room for that, and else several in one item."""
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


def _still(mark: str | None) -> dict[str, Any]:
    if mark is None:
        return {"ConditionExpression": "attribute_not_exists(pk)"}
    return {"ConditionExpression": "v = :v", "ExpressionAttributeValues": {":v": {"S": mark}}}


def _number(name: str, value: int) -> Item:
    return {name: {"N": str(value)}}
