"""The store on DynamoDB: one table per domain, which any number of processes share.

An operation costs one call (`get`), two (`page`, `update`, `transact`: a read and a transaction) or a few. Writes are
conditional on every entity that `change` was given, written or only read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from events.catalog import Payload
from events.outbox import OutboxRow
from functions.runtime.clock import Clock
from functions.runtime.errors import invalid
from functions.runtime.store.codec import CodecRegistry, micros
from functions.runtime.store.cursors import Listing, cursor_after, lower_bound
from functions.runtime.store.dynamodb import layout
from functions.runtime.store.dynamodb.client import Connection, Database
from functions.runtime.store.dynamodb.table import OutboxTable, Range, Table, listed
from functions.runtime.store.dynamodb.transactions import Action, Groups, Job, Writer
from functions.runtime.store.planning import Request, fitting
from functions.runtime.store.port import Changes, Entity, EntityMapping, IdempotencyRecord, Page, Ref
from functions.runtime.store.single import single
from observability.context import current

E = TypeVar("E", bound=Entity)
R = TypeVar("R")

_log = logging.getLogger("shop.store")


class DynamoDBStore:
    """The port over one table, which must be there, unless `create_table` (for development) makes it at first use.

    `database` is for tests of failing ones.
    """

    def __init__(
        self,
        table: str,
        mappings: Sequence[EntityMapping[Any]],
        clock: Clock,
        connection: Connection,
        *,
        create_table: bool = False,
        database: Database | None = None,
    ) -> None:
        self._shapes = CodecRegistry(mappings)
        self._clock = clock
        prepare = partial(_create, table) if create_table else None
        self._table = Table(table, database or Database(connection, prepare=prepare))
        self._writer = Writer(self._table, self._shapes, clock, self._committed)
        self._groups = Groups(self._writer.run)
        self._patience = connection.patience
        self._outbox = OutboxTable(self._table)
        self._listeners: list[Callable[[Sequence[OutboxRow]], None]] = []

    async def get(self, cls: type[E], entity_id: str) -> E | None:
        """The entity as last committed, or None."""
        return (await self.get_many(cls, [entity_id])).get(entity_id)

    async def get_many(self, cls: type[E], ids: Sequence[str]) -> dict[str, E]:
        """Those of `ids` that exist, by id."""
        codec = self._shapes.of(cls)
        keys = {entity_id: layout.entity_key(codec.name, entity_id) for entity_id in ids}
        keys = {entity_id: key for entity_id, key in keys.items() if layout.fits(key["pk"]["S"])}
        items = await self._table.read(list(keys.values()), await self._table.begin())
        now = self._clock.now()
        found = {entity_id: items.get(key["pk"]["S"]) for entity_id, key in keys.items()}
        return {
            entity_id: codec.decode(layout.stored_of(item).data)
            for entity_id, item in found.items()
            if item is not None and not layout.is_over(item, now)
        }

    async def page(
        self,
        cls: type[E],
        index: str,
        partition: str,
        *,
        limit: int,
        cursor: str | None = None,
        descending: bool = False,
        until: str | None = None,
        since: str | None = None,
    ) -> Page[E]:
        """Entities of one partition by sort key, from `cursor` on, up to `until`."""
        codec = self._shapes.of(cls)
        listing = Listing(codec.name, index, partition, descending, await self.epoch())
        after = lower_bound(listing, cursor, since)
        if not layout.fits(
            layout.entry_partition(codec.name, index, partition), layout.place(*after) if after else ""
        ):
            return Page([])
        wanted = Range(codec.name, index, partition, after, until, descending)
        found = await listed(self._table, wanted, limit + 1, self._clock.now())
        fit = fitting((len(stored.data) for _, stored in found), limit)
        items = [codec.decode(stored.data) for _, stored in found[:fit]]
        more = len(found) > fit
        return Page(items, cursor_after(listing, *found[fit - 1][0]) if more else None)

    async def update(
        self,
        cls: type[E],
        entity_id: str,
        change: Callable[[E | None], tuple[E, Sequence[Payload]]],
        *,
        idempotency: IdempotencyRecord | None = None,
    ) -> E:
        """Create or change one entity."""
        return await self.transact([Ref(cls, entity_id)], single(change), idempotency=idempotency)

    async def transact(
        self,
        refs: Sequence[Ref],
        change: Callable[[Sequence[Any]], Changes[R]],
        *,
        idempotency: IdempotencyRecord | None = None,
    ) -> R:
        """Change several entities at once; at most 100 items (entities, index entries, the guard), else ValueError.

        Raises INVALID_ARGUMENT (ID_TOO_LONG) for ids and guards of more than two thousand bytes.
        """
        request = Request(refs, change, idempotency, current())
        deadline = asyncio.get_running_loop().time() + self._patience
        keys = self._writer.keys(request)
        if not all(map(layout.fits, keys)):
            raise invalid("This id is too long.", reason="ID_TOO_LONG")
        result: R = await self._groups.do(Job(request, keys, deadline))
        return result

    async def outbox(self, before: datetime, limit: int) -> list[OutboxRow]:
        """Rows written before `before`, oldest first."""
        return await self._outbox.read(before, limit, await self._table.begin())

    async def outbox_published(self, ids: Sequence[str]) -> None:
        """Forget these rows."""
        await self._outbox.published(ids, await self._table.begin())

    async def outbox_state(self) -> tuple[int, datetime | None]:
        """How many rows wait (of very many, at least so many), and when the oldest was written."""
        return await self._outbox.state(await self._table.begin())

    def on_commit(self, listener: Callable[[Sequence[OutboxRow]], None]) -> None:
        """Call `listener` with the rows of every commit of this process."""
        self._listeners.append(listener)

    async def expire(self, now: datetime, limit: int = 1000) -> int:
        """Remove entities and guards whose time is over; how many."""
        deadline, due = await self._table.begin(), micros(now)
        shards = await asyncio.gather(
            *(self._table.expiring(shard, due, limit, deadline) for shard in range(layout.EXPIRY_SHARDS))
        )
        keys = [key for shard in shards for key in shard][:limit]
        entities = await self._table.read([key for key in keys if key["sk"]["S"] == "e"], deadline)
        removals = [
            self._writer.actions.removal(item) for item in entities.values() if layout.is_over(item, now)
        ]
        removals += [self._writer.actions.record_removal(key, due) for key in keys if key["sk"]["S"] == "g"]
        return await self._writer.remove(removals, deadline)

    def request_purge(self) -> None:
        """The files are the database's own."""

    async def epoch(self) -> int:
        """Which life of the data this is."""
        return await self._table.epoch(await self._table.begin())

    async def ping(self) -> None:
        """Read from the table; raises UNAVAILABLE, and NoTransactions where the store cannot keep its word."""
        deadline = await self._table.begin()
        await self._table.require_transactions(deadline)
        await self._table.get(layout.record_key("ping"), deadline)

    async def close(self) -> None:
        """Finish the commits under way, refuse everything else."""
        await self._groups.close()
        await self._table.close()

    def _committed(self, rows: Sequence[OutboxRow], actions: Sequence[Action]) -> None:
        if not rows:
            return
        self._outbox.written([action["Put"]["Item"] for action in actions if "Put" in action])
        for listener in self._listeners:
            try:
                listener(rows)
            except Exception:
                _log.exception("a commit listener failed")


def _create(table: str, client: Any) -> None:
    from functions.runtime.store.dynamodb.tables import create  # only where the table may be missing

    create(client, table)
