"""Reads of one DynamoDB table: by keys, by partition, listings, and the outbox."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from events.outbox import OutboxRow
from functions.runtime.store.codec import from_micros, micros
from functions.runtime.store.dynamodb import layout
from functions.runtime.store.dynamodb.client import Database
from functions.runtime.store.dynamodb.layout import Item
from functions.runtime.store.planning import Stored
from functions.runtime.store.port import IndexKey
from observability.failpoints import failpoint

_GET = 100  # keys that BatchGetItem takes
_WRITE = 25  # and BatchWriteItem


class NotAll(Exception):
    """DynamoDB left a part of a batch undone, as it does when throttled."""


class Table:
    """One table of a database. Every read but that of `expiring` sees what was committed before it."""

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
        """Which life of the data this is, as read when first asked for."""
        if self._epoch is None:
            self._epoch = layout.epoch_of(await self.get(layout.epoch_key(), deadline))
        return self._epoch

    async def get(self, key: Item, deadline: float) -> Item | None:
        """One item, or None."""
        answer = await self._database.call(
            "get_item", deadline, TableName=self.name, Key=key, ConsistentRead=True
        )
        item: Item | None = answer.get("Item")
        return item

    async def read(self, keys: Sequence[Item], deadline: float) -> dict[str, Item]:
        """Those of the items that exist, by `pk`, in no particular order; a key may be named twice."""
        unique = list({key["pk"]["S"]: key for key in keys}.values())
        if len(unique) == 1:
            item = await self.get(unique[0], deadline)
            return {item["pk"]["S"]: item} if item else {}
        chunks = [unique[start : start + _GET] for start in range(0, len(unique), _GET)]
        found: dict[str, Item] = {}
        for items in await asyncio.gather(*(self._batch(chunk, deadline) for chunk in chunks)):
            found.update((item["pk"]["S"], item) for item in items)
        return found

    async def forget(self, keys: Sequence[Item], deadline: float) -> None:
        """Remove these items, whether or not they exist."""
        chunks = [keys[start : start + _WRITE] for start in range(0, len(keys), _WRITE)]
        await asyncio.gather(*(self._forget(chunk, deadline) for chunk in chunks))

    async def query(self, deadline: float, **parameters: Any) -> tuple[list[Item], Item | None]:
        """One page of a Query: its items, and where the next begins (None at the end)."""
        answer = await self._database.call("query", deadline, TableName=self.name, **parameters)
        return answer["Items"], answer.get("LastEvaluatedKey")

    async def partition(
        self, pk: str, deadline: float, *, pages: int | None = None, **parameters: Any
    ) -> AsyncIterator[list[Item]]:
        """A partition in order of `sk`, page by page; `parameters` as of a Query, its values by `values`."""
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
        """Keys of what has ended by `due` (microseconds); may lag behind by a moment, so each is to be checked."""
        found: list[Item] = []
        start: Item | None = None
        while len(found) < limit:
            items, start = await self.query(
                deadline,
                IndexName=layout.EXPIRY,
                KeyConditionExpression="xs = :xs AND ex <= :due",
                ExpressionAttributeValues={
                    ":xs": {"S": layout.expiry_partition(shard)},
                    ":due": {"N": str(due)},
                },
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

    async def _forget(self, keys: Sequence[Item], deadline: float) -> None:
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


Found = tuple[tuple[str, str], Stored]
"""An entity with its place, (sort, id)."""


class Range(NamedTuple):
    """A part of one listing: what follows `after` (sort, id), with sort keys up to `until`."""

    kind: str
    name: str
    partition: str
    after: tuple[str, str] | None
    until: str | None
    descending: bool


async def listed(table: Table, wanted: Range, limit: int, now: datetime) -> list[Found]:
    """The first `limit` entities of the range.

    Between the reads of an entry and of its entity that may have moved or gone: then it is left out, so that
    everything listed is as the listing says.
    """
    bounds = _bounds(wanted)
    if bounds is None:
        return []
    found: list[Found] = []
    deadline = await table.begin()
    pages = table.partition(
        layout.entry_partition(wanted.kind, wanted.name, wanted.partition),
        deadline,
        ProjectionExpression="sk",
        ScanIndexForward=not wanted.descending,
        Limit=limit,
        **bounds,
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
            if IndexKey(wanted.name, wanted.partition, place[0]) in layout.entries_of(stored):
                found.append((place, stored))
        if len(found) >= limit:
            break
    return found[:limit]


def _bounds(wanted: Range) -> dict[str, Any] | None:
    """The range as a condition of a Query; None when nothing can lie in it."""
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
    # A Query takes one condition: just after `after` is after it with the lowest character there is.
    values = {":after": {"S": after + "\x00"}, ":end": {"S": until}}
    return {"condition": " AND sk BETWEEN :after AND :end", "values": values}


_PAGE = 500
_COUNTED = 10  # pages of 1 MB per shard: further than that nobody counts


class OutboxTable:
    """The rows of one table that wait to be published."""

    def __init__(self, table: Table) -> None:
        self._table = table
        # Items that hold several rows, each with those that are not published yet. Forgotten in a crash, whereupon all
        # of them are published again, as any row whose removal was lost.
        self._packs: dict[str, set[str]] = {}
        self._pack_of: dict[str, str] = {}

    def written(self, items: Sequence[Item]) -> None:
        """Remember which rows lie together."""
        for item in items:
            if "more" in item:
                self._unpacked(item)

    async def read(self, before: datetime, limit: int, deadline: float) -> list[OutboxRow]:
        """Rows written before `before`, by id, which is by age."""
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

    async def published(self, ids: Sequence[str], deadline: float) -> None:
        """Remove these rows."""
        whole: dict[str, None] = {}
        for row_id in ids:
            first = self._pack_of.get(row_id)
            if first is None:
                whole[row_id] = None
                continue
            self._packs[first].discard(row_id)
            if not self._packs[first]:
                whole[first] = None
        await self._table.forget([layout.outbox_key(row_id) for row_id in whole], deadline)
        for row_id in ids:
            first = self._pack_of.get(row_id)
            if first in whole:
                self._packs.pop(first, None)
                del self._pack_of[row_id]

    async def state(self, deadline: float) -> tuple[int, datetime | None]:
        """How many wait, and the oldest one's time; beyond some ten thousand rows a shard, at least so many."""
        shards = await asyncio.gather(
            *(self._state(shard, deadline) for shard in range(layout.OUTBOX_SHARDS))
        )
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

    async def _rows(
        self, shard: int, before: datetime, limit: int, deadline: float
    ) -> AsyncIterator[list[OutboxRow]]:
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
                rows += self._unpacked(item) if "more" in item else layout.outbox_rows_of(item)
            yield rows

    def _unpacked(self, item: Item) -> list[OutboxRow]:
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
        """Read on until there are rows, or no more."""
        while not self.rows:
            try:
                self.rows.extend(await anext(self._pages))
            except StopAsyncIteration:
                return
