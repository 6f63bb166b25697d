"""What a transaction on DynamoDB consists of: puts, deletes and checks, each with its condition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from events.outbox import OutboxRow
from functions.runtime.store import dynamodb_layout as layout
from functions.runtime.store.codec import micros
from functions.runtime.store.dynamodb_layout import Item
from functions.runtime.store.planning import IdempotencyRow, Stored, Write

Action = dict[str, Any]
LARGEST = 100
"""Actions of one transaction of DynamoDB."""
_PACK_BYTES = 200_000  # of DynamoDB's 400 KB for an item


class TooLarge(ValueError):
    """A transaction wants to touch more items than DynamoDB can change at once."""


class Actions:
    """Makes the actions of transactions of one table. A mark is an entity's `v` as read, None where it was absent."""

    def __init__(self, table: str) -> None:
        self._table = table

    def write(self, write: Write, condition: str | None, token: str) -> Iterator[Action]:
        """An entity with its index entries, on condition that it is still as marked; `token` is the transaction's."""
        kind, key, new = write.kind, write.id, write.new
        for entry in write.removed:
            yield self._delete(layout.entry_key(kind, key, entry))
        if new is None:
            yield self._delete(layout.entity_key(kind, key), **_still(condition))
            return
        # Entries end with their entity: when that moves, all of them are written anew.
        moved = write.old is not None and write.old.expires != new.expires
        for entry in layout.entries_of(new) if moved else write.added:
            yield self._put(layout.entry_item(kind, key, entry, new.expires))
        item = layout.entity_item(kind, key, new, layout.version_of(new.version, token))
        yield self._put(item, **_still(condition))

    def check(self, key: Item, condition: str | None) -> Action:
        """An entity that was only read is still as marked."""
        return {"ConditionCheck": {"TableName": self._table, "Key": key, **_still(condition)}}

    def record(self, record: IdempotencyRow, now: datetime) -> Action:
        """A guard that is not there yet, or has ended."""
        return self._put(
            layout.record_item(record),
            ConditionExpression="attribute_not_exists(pk) OR ex <= :now",
            ExpressionAttributeValues=_number(":now", micros(now)),
        )

    def outbox(self, rows: Sequence[OutboxRow], room: int) -> list[Action]:
        """The rows: each by itself where there is room for that, and else several in one item."""
        return [self._put(layout.outbox_item(pack), **_still(None)) for pack in _packs(rows, room)]

    def removal(self, item: Item) -> list[Action]:
        """Of an entity (its item) with its index entries, if it is still the same."""
        kind, entity_id = item["pk"]["S"].split("#", 2)[1:]
        stored = layout.stored_of(item)
        write = Write(kind, entity_id, stored, None, (), layout.entries_of(stored))
        return list(self.write(write, item["v"]["S"], ""))

    def record_removal(self, key: Item, due: int) -> list[Action]:
        """Of a guard, if it has not been put anew in the meantime."""
        condition = "attribute_not_exists(pk) OR ex <= :due"
        return [
            self._delete(key, ConditionExpression=condition, ExpressionAttributeValues=_number(":due", due))
        ]

    def _put(self, item: Item, **condition: Any) -> Action:
        return {"Put": {"TableName": self._table, "Item": item, **condition}}

    def _delete(self, key: Item, **condition: Any) -> Action:
        return {"Delete": {"TableName": self._table, "Key": key, **condition}}


def merged(kind: str, entity_id: str, before: Stored | None, after: Stored | None) -> Write:
    """One write in place of several of the same entity."""
    old, new = set(layout.entries_of(before)), set(layout.entries_of(after))
    return Write(kind, entity_id, before, after, sorted(new - old), sorted(old - new))


def is_over(item: Item, now: datetime) -> bool:
    """Whether its time is over, although DynamoDB may take days to remove it."""
    expires = layout.expiry_of(item)
    return expires is not None and expires <= micros(now)


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
