"""The stores of the domains: in memory with interleaved calls, on disk, or on PostgreSQL."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg

from functions.runtime.clock import ManualClock
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import EntityMapping, Ref, Store
from functions.runtime.store.postgres.client import Connection, postgres_url
from functions.runtime.store.postgres.local import PostgresServer
from functions.runtime.store.postgres.migrate import migrated
from functions.runtime.store.postgres.schema import role_of, schema_of
from functions.runtime.store.postgres.store import PostgresStore
from functions.runtime.store.sqlite.store import SQLiteStore

OpenStore = Callable[[str, Sequence[EntityMapping[Any]], ManualClock], Store]


class InterleavingStore(MemoryStore):
    """A memory store whose calls yield to other tasks a random number of times.

    A transaction with an entity in `broken` fails, as if its data were corrupt.
    """

    def __init__(self, mappings: Sequence[EntityMapping[Any]], clock: ManualClock, chance: random.Random) -> None:
        super().__init__(mappings, clock, lost_races=1)
        self._chance = chance
        self.broken: set[str] = set()

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        await self._wait()
        return await super().get(*args, **kwargs)

    async def page(self, *args: Any, **kwargs: Any) -> Any:
        await self._wait()
        return await super().page(*args, **kwargs)

    async def transact(self, refs: Sequence[Ref], *args: Any, **kwargs: Any) -> Any:
        await self._wait()
        if any(ref.id in self.broken for ref in refs):
            raise RuntimeError("corrupt")
        done = await super().transact(refs, *args, **kwargs)
        await self._wait()
        return done

    async def _wait(self) -> None:
        for _ in range(self._chance.choice((0, 0, 1, 3, 9))):
            await asyncio.sleep(0)


def interleaving(chance: random.Random) -> OpenStore:
    """Return a factory of stores in memory."""
    return lambda _, mappings, clock: InterleavingStore(mappings, clock, chance)


def on_postgres(server: PostgresServer) -> OpenStore:
    """Return a factory of empty stores on this server. Whoever calls it again takes the stores from the one before."""

    def open_store(name: str, mappings: Sequence[EntityMapping[Any]], clock: ManualClock) -> Store:
        store = f"disorder-{name}"
        with ThreadPoolExecutor(1) as thread:  # an event loop may run in this one
            emptied = thread.submit(lambda: asyncio.run(_empty(server.urls.admin, schema_of(store)))).result()
        if not emptied:
            migrated(server, [store])
        connection = Connection(postgres_url(server.urls.domains).url, role_of(store), lambda: None, timeout=60)
        return PostgresStore(schema_of(store), mappings, clock, connection)

    return open_store


async def _empty(url: str, schema: str) -> bool:
    """Empty the tables of a schema; return False if there are none."""
    tables = ", ".join(f"{schema}.{table}" for table in ("entity", "entry", "searched", "outbox", "guard"))
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"TRUNCATE {tables}")
    except asyncpg.InvalidSchemaNameError:
        return False
    finally:
        await connection.close()
    return True


def on_disk(folder: Path) -> OpenStore:
    """Return a factory of SQLite stores, a file for each domain."""
    return lambda name, mappings, clock: SQLiteStore(folder / f"{name}.db", mappings, clock)
