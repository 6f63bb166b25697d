"""Access to one DynamoDB table: items by key, partitions, listings, and the outbox."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from events.outbox import OutboxRow
from functions.runtime.store.base import Found, Range
from functions.runtime.store.codec import from_micros, micros
from functions.runtime.store.dynamodb import layout
from functions.runtime.store.dynamodb.client import Database
from functions.runtime.store.dynamodb.layout import Item
from functions.runtime.store.groups import entries_of
from functions.runtime.store.port import IndexKey
from observability.failpoints import failpoint

_GET = 100  # maximum number of keys in a BatchGetItem
_WRITE = 25  # maximum number of items in a BatchWriteItem


class NotAll(Exception):
    """DynamoDB processed only a part of a batch, as it does when it throttles."""


class Table:
    """One table of a database. All reads except `expiring` are strongly consistent."""

    def __init__(self, name: str, database: Database) -> None:
        self.name = name
        self._database = database
        self._epoch: int | None = None
        self.transact = database.transact
        self.pause = database.pause
        self.begin = database.begin
        self.require_transactions = database.require_transactions
        self.close = database.close

    async def epoch(self, deadline: float) -> int:
        """Return the epoch of the data (see `Store.epoch`). It is read once and cached."""
        if self._epoch is None:
            self._epoch = layout.epoch_of(await self.get(layout.epoch_key(), deadline))
        return self._epoch

    async def get(self, key: Item, deadline: float) -> Item | None:
        """Return one item, or None."""
        answer = await self._database.call("get_item", deadline, TableName=self.name, Key=key, ConsistentRead=True)
        item: Item | None = answer.get("Item")
        return item

    async def read(self, keys: Sequence[Item], deadline: float) -> dict[str, Item]:
        """Return the items that exist among `keys`, by `pk`, in no particular order. Keys may repeat."""
        unique = list({key["pk"]["S"]: key for key in keys}.values())
        if len(unique) == 1:
            item = await self.get(unique[0], deadline)
            return {item["pk"]["S"]: item} if item else {}
        chunks = [unique[start : start + _GET] for start in range(0, len(unique), _GET)]
        found: dict[str, Item] = {}
        for items in await asyncio.gather(*(self._batch(chunk, deadline) for chunk in chunks)):
            found.update((item["pk"]["S"], item) for item in items)
        return found

    async def remove(self, keys: Sequence[Item], deadline: float) -> None:
        """Remove these items. Items that do not exist are ignored."""
        chunks = [keys[start : start + _WRITE] for start in range(0, len(keys), _WRITE)]
        await asyncio.gather(*(self._remove(chunk, deadline) for chunk in chunks))

    async def query(self, deadline: float, **parameters: Any) -> tuple[list[Item], Item | None]:
        """Return one page of a Query: its items, and the key at which the next page begins (None at the end)."""
        answer = await self._database.call("query", deadline, TableName=self.name, **parameters)
        return answer["Items"], answer.get("LastEvaluatedKey")

    async def partition(
        self, pk: str, deadline: float, *, pages: int | None = None, **parameters: Any
    ) -> AsyncIterator[list[Item]]:
        """Yield the pages of a partition in the order of `sk`, up to `pages` pages.

        `parameters` are the parameters of a Query, plus `condition` and `values`, which extend its key condition.
        """
        values = {":pk": {"S": pk}, **parameters.pop("values", {})}
        condition = "pk = :pk" + parameters.pop("condition", "")
        start: Item | None = None
        while pages is None or pages > 0:
            items, start = await self.query(
                deadline,
                KeyConditionExpression=condition,
                ExpressionAttributeValues=values,
                ConsistentRead=True,
                **parameters,
                **({"ExclusiveStartKey": start} if start else {}),
            )
            yield items
            if start is None:
                return
            pages = pages - 1 if pages else None

    async def expiring(self, shard: int, due: int, limit: int, deadline: float) -> list[Item]:
        """Return the keys of items that have expired by `due` (microseconds since 1970).

        The index is eventually consistent, so the caller checks each item.
        """
        found: list[Item] = []
        start: Item | None = None
        while len(found) < limit:
            items, start = await self.query(
                deadline,
                IndexName=layout.EXPIRY,
                KeyConditionExpression="xs = :xs AND ex <= :due",
                ExpressionAttributeValues={":xs": {"S": layout.expiry_partition(shard)}, ":due": {"N": str(due)}},
                Limit=limit - len(found),
                **({"ExclusiveStartKey": start} if start else {}),
            )
            found += [{"pk": item["pk"], "sk": item["sk"]} for item in items]
            if start is None:
                break
        return found

    async def _batch(self, keys: Sequence[Item], deadline: float) -> list[Item]:
        found: list[Item] = []
        left: dict[str, Any] = {self.name: {"Keys": keys, "ConsistentRead": True}} if keys else {}
        attempt = 0
        while left:
            answer = await self._database.call("batch_get_item", deadline, RequestItems=left)
            found += answer["Responses"].get(self.name, [])
            left = answer.get("UnprocessedKeys") or {}
            if left:
                await self.pause(attempt, deadline, NotAll("unprocessed keys"))
                attempt += 1
        return found

    async def _remove(self, keys: Sequence[Item], deadline: float) -> None:
        left: dict[str, Any] = {self.name: [{"DeleteRequest": {"Key": key}} for key in keys]}
        attempt = 0
        while left:
            failpoint("dynamodb.forget.before")
            answer = await self._database.call("batch_write_item", deadline, RequestItems=left)
            failpoint("dynamodb.forget.after")
            left = answer.get("UnprocessedItems") or {}
            if left:
                await self.pause(attempt, deadline, NotAll("unprocessed items"))
                attempt += 1


async def read_range(table: Table, wanted: Range, limit: int, now: datetime) -> list[Found]:
    """Return the first `limit` entities of the range. A Query reads index entries, and BatchGetItem their entities.

    An entity that was removed or left the listing between the two reads is omitted.
    """
    partition = layout.entry_partition(wanted.kind, wanted.name, wanted.partition)
    bounds = _bounds(wanted)
    if bounds is None or not layout.fits(partition, layout.place(*wanted.after) if wanted.after else ""):
        return []
    found: list[Found] = []
    deadline = await table.begin()
    pages = table.partition(
        partition, deadline, ProjectionExpression="sk", ScanIndexForward=not wanted.descending, Limit=limit, **bounds
    )
    async for entries in pages:
        places = [layout.placed(entry["sk"]["S"]) for entry in entries]
        keys = [layout.entity_key(wanted.kind, entity_id) for _, entity_id in places]
        items = await table.read(keys, deadline) if keys else {}
        for place, key in zip(places, keys, strict=True):
            item = items.get(key["pk"]["S"])
            if item is None or layout.is_over(item, now):
                continue
            stored = layout.stored_of(item)
            if IndexKey(wanted.name, wanted.partition, place[0]) in entries_of(stored):
                found.append((*place, stored.data))
        if len(found) >= limit:
            break
    return found[:limit]


def _bounds(wanted: Range) -> dict[str, Any] | None:
    """Return the range as parameters of a Query, or None if it is empty."""
    after = layout.place(*wanted.after) if wanted.after else None
    until = layout.last_place(wanted.until) if wanted.until is not None else None
    if wanted.descending:
        ends = [end for end in (after, until) if end is not None]
        return {"condition": " AND sk < :end", "values": {":end": {"S": min(ends)}}} if ends else {}
    if after is None:
        return {"condition": " AND sk < :end", "values": {":end": {"S": until}}} if until else {}
    if until is None:
        return {"condition": " AND sk > :after", "values": {":after": {"S": after}}}
    if after >= until:
        return None
    # A Query takes one condition on the sort key, and BETWEEN includes its bounds. So the lower bound is the smallest
    # key that is greater than `after`.
    values = {":after": {"S": after + "\x00"}, ":end": {"S": until}}
    return {"condition": " AND sk BETWEEN :after AND :end", "values": values}


_PAGE = 500
_COUNTED = 10  # maximum number of 1 MB pages that are counted in each shard


class OutboxTable:
    """The outbox of one table. It has a few partitions, each ordered by row id, which `read` merges."""

    def __init__(self, table: Table) -> None:
        self._table = table
        # The unpublished rows of each item that holds several rows, by the id of the item's first row. After a crash,
        # which loses this state, all rows of such an item are published again.
        self._packs: dict[str, set[str]] = {}
        self._pack_of: dict[str, str] = {}

    def written(self, items: Sequence[Item]) -> None:
        """Record which rows share an item."""
        for item in items:
            if "more" in item:
                self._unpack(item)

    async def read(self, before: datetime, limit: int, deadline: float) -> list[OutboxRow]:
        """Return rows that were written before `before`, in the order of their ids, which is oldest first."""
        shards = [_Shard(self._rows(shard, before, limit, deadline)) for shard in range(layout.OUTBOX_SHARDS)]
        await asyncio.gather(*(shard.fill() for shard in shards))
        rows: list[OutboxRow] = []
        while len(rows) < limit:
            waiting = [shard for shard in shards if shard.rows]
            if not waiting:
                break
            oldest = min(waiting, key=lambda shard: shard.rows[0].id)
            rows.append(oldest.rows.popleft())
            if not oldest.rows:
                await oldest.fill()
        return rows

    async def remove(self, ids: Sequence[str], deadline: float) -> None:
        """Remove these rows. An item that holds several rows is deleted with its last row."""
        whole: dict[str, None] = {}
        for row_id in ids:
            first = self._pack_of.get(row_id)
            if first is None:
                whole[row_id] = None
                continue
            self._packs[first].discard(row_id)
            if not self._packs[first]:
                whole[first] = None
        await self._table.remove([layout.outbox_key(row_id) for row_id in whole], deadline)
        for row_id in ids:
            first = self._pack_of.get(row_id)
            if first in whole:
                self._packs.pop(first, None)
                del self._pack_of[row_id]

    async def state(self, deadline: float) -> tuple[int, datetime | None]:
        """Return the number of rows and when the oldest was written. Counting stops at about 10,000 per shard."""
        shards = await asyncio.gather(*(self._state(shard, deadline) for shard in range(layout.OUTBOX_SHARDS)))
        times = [oldest for _, oldest in shards if oldest is not None]
        return sum(count for count, _ in shards), from_micros(min(times)) if times else None

    async def _state(self, shard: int, deadline: float) -> tuple[int, int | None]:
        count, oldest = 0, None
        pages = self._table.partition(
            layout.outbox_partition(shard), deadline, pages=_COUNTED, ProjectionExpression="sk, tm, n"
        )
        async for items in pages:
            for item in items:
                pack = self._packs.get(item["sk"]["S"])
                count += len(pack) if pack is not None else int(item["n"]["N"]) if "n" in item else 1
                if oldest is None:
                    oldest = int(item["tm"]["N"])
        return count, oldest

    async def _rows(self, shard: int, before: datetime, limit: int, deadline: float) -> AsyncIterator[list[OutboxRow]]:
        pages = self._table.partition(
            layout.outbox_partition(shard),
            deadline,
            values={":before": {"N": str(micros(before))}},
            FilterExpression="tm < :before",
            Limit=min(_PAGE, limit),
        )
        async for items in pages:
            rows: list[OutboxRow] = []
            for item in items:
                rows += self._unpack(item) if "more" in item else layout.outbox_rows_of(item)
            yield rows

    def _unpack(self, item: Item) -> list[OutboxRow]:
        rows = layout.outbox_rows_of(item)
        first = rows[0].id
        left = self._packs.setdefault(first, {row.id for row in rows})
        self._pack_of.update(dict.fromkeys((row.id for row in rows), first))
        return [row for row in rows if row.id in left]


class _Shard:
    def __init__(self, pages: AsyncIterator[list[OutboxRow]]) -> None:
        self.rows: deque[OutboxRow] = deque()
        self._pages = pages

    async def fill(self) -> None:
        """Read pages until one has rows or the partition ends."""
        while not self.rows:
            try:
                self.rows.extend(await anext(self._pages))
            except StopAsyncIteration:
                return
