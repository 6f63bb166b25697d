"""The store on DynamoDB, with one table for each domain, which any number of processes may share.

A `get` costs one call. `page` costs two reads; `update` and `transact` cost a read and a transaction. A transaction is
conditional on every entity that `change` was given, whether `change` writes it or only reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from events.outbox import OutboxRow
from functions.runtime.clock import Clock
from functions.runtime.errors import invalid
from functions.runtime.store.base import Found, Range, StoreBase
from functions.runtime.store.codec import micros
from functions.runtime.store.dynamodb import layout
from functions.runtime.store.dynamodb.client import Connection, Database, Refused
from functions.runtime.store.dynamodb.search import read_matching
from functions.runtime.store.dynamodb.table import OutboxTable, Table, read_range
from functions.runtime.store.dynamodb.transactions import Action, TooLarge, Writer
from functions.runtime.store.groups import Groups, Job
from functions.runtime.store.planning import Request
from functions.runtime.store.port import EntityMapping
from functions.runtime.store.search import Query


class DynamoDBStore(StoreBase):
    """An implementation of the port with one table.

    The table must exist, unless `create_table` (for development) is true, which creates it at first use. A transaction
    has at most 100 items (entities, index entries, the idempotency record); a larger one raises ValueError. Ids and
    keys of more than two thousand bytes raise INVALID_ARGUMENT (ID_TOO_LONG). Tests pass a `database` that fails.
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
        super().__init__(mappings, clock)
        prepare = partial(_create, table) if create_table else None
        self._table = Table(table, database or Database(connection, prepare=prepare))
        self._writer = Writer(self._table, self._codecs, clock, self._committed)
        self._groups = Groups(self._writer.run, (Refused, TooLarge))
        self._timeout = connection.timeout
        self._outbox = OutboxTable(self._table)

    async def _read_many(self, kind: str, ids: Sequence[str]) -> Mapping[str, bytes]:
        keys = {entity_id: layout.entity_key(kind, entity_id) for entity_id in ids}
        keys = {entity_id: key for entity_id, key in keys.items() if layout.fits(key["pk"]["S"])}
        items = await self._table.read(list(keys.values()), await self._table.begin())
        now = self._clock.now()
        found = {entity_id: items.get(key["pk"]["S"]) for entity_id, key in keys.items()}
        return {
            entity_id: layout.stored_of(item).data
            for entity_id, item in found.items()
            if item is not None and not layout.is_over(item, now)
        }

    async def _read_range(self, wanted: Range, limit: int) -> Sequence[Found]:
        return await read_range(self._table, wanted, limit, self._clock.now())

    async def _read_matching(self, query: Query, limit: int) -> tuple[Sequence[Found], str | None]:
        return await read_matching(self._table, query, limit, self._clock.now())

    async def _commit(self, request: Request) -> Any:
        deadline = asyncio.get_running_loop().time() + self._timeout
        keys = self._writer.keys(request)
        if not all(map(layout.fits, keys)):
            raise invalid("This id is too long.", reason="ID_TOO_LONG")
        return await self._groups.run(Job(request, keys, deadline))

    async def outbox(self, before: datetime, limit: int) -> list[OutboxRow]:
        return await self._outbox.read(before, limit, await self._table.begin())

    async def outbox_published(self, ids: Sequence[str]) -> None:
        await self._outbox.remove(ids, await self._table.begin())

    async def outbox_state(self) -> tuple[int, datetime | None]:
        """See `Store` in port.py. Counting stops at about ten thousand rows per shard."""
        return await self._outbox.state(await self._table.begin())

    async def expire(self, now: datetime, limit: int = 1000) -> int:
        deadline, due = await self._table.begin(), micros(now)
        shards = await asyncio.gather(
            *(self._table.expiring(shard, due, limit, deadline) for shard in range(layout.EXPIRY_SHARDS))
        )
        keys = [key for shard in shards for key in shard][:limit]
        entities = await self._table.read([key for key in keys if key["sk"]["S"] == "e"], deadline)
        actions = self._writer.actions
        removals = [actions.removal(item) for item in entities.values() if layout.is_over(item, now)]
        removals += [actions.record_removal(key, due) for key in keys if key["sk"]["S"] == "g"]
        return await self._writer.remove(removals, deadline)

    async def epoch(self) -> int:
        return await self._table.epoch(await self._table.begin())

    async def ping(self) -> None:
        """Read from the table. Raises UNAVAILABLE, and NoTransactions for a database that has no transactions."""
        deadline = await self._table.begin()
        await self._table.require_transactions(deadline)
        await self._table.get(layout.record_key("ping"), deadline)

    async def close(self) -> None:
        """Finish the commits in progress, and refuse every later call."""
        await self._groups.close()
        await self._table.close()

    def _committed(self, rows: Sequence[OutboxRow], actions: Sequence[Action]) -> None:
        if rows:
            self._outbox.written([action["Put"]["Item"] for action in actions if "Put" in action])
        self._notify(rows)


def _create(table: str, client: Any) -> None:
    from functions.runtime.store.dynamodb.tables import create  # imported only if the table may be missing

    create(client, table)
