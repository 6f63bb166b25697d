"""The outbox on DynamoDB: a few partitions, each in the order of the rows' ids, merged when read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from events.outbox import OutboxRow
from functions.runtime.store import dynamodb_layout as layout
from functions.runtime.store.codec import from_micros, micros
from functions.runtime.store.dynamodb_layout import Item
from functions.runtime.store.dynamodb_table import Table

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
