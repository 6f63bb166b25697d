"""The adapters that the contract suite runs over: one line each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import cache, partial
from itertools import count
from os import getpid
from pathlib import Path
from typing import Any

import pytest

from functions.runtime.clock import Clock, ManualClock
from functions.runtime.store.dynamodb.client import Connection, Database, make_client
from functions.runtime.store.dynamodb.store import DynamoDBStore
from functions.runtime.store.dynamodb.tables import create
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import Store
from functions.runtime.store.postgres.client import Connection as PostgresConnection
from functions.runtime.store.postgres.client import Database as PostgresDatabase
from functions.runtime.store.postgres.client import postgres_url
from functions.runtime.store.postgres.local import PostgresServer
from functions.runtime.store.postgres.store import PostgresStore
from functions.runtime.store.sqlite.store import SQLiteStore
from functions.runtime.tests.store_faults import Faults
from functions.runtime.tests.store_kinds import MAPPINGS

ADAPTERS: dict[str, Callable[[Path, Clock], Store]] = {
    "memory": lambda _, clock: MemoryStore(MAPPINGS, clock),
    "memory-racing": lambda _, clock: MemoryStore(MAPPINGS, clock, lost_races=1),
    "sqlite": lambda path, clock: SQLiteStore(path / "store.db", MAPPINGS, clock),
}
DATABASES: dict[str, Callable[[str], Connection]] = {
    # One call at a time: moto's transactions do not bear others beside them.
    "moto": lambda url: Connection(url, threads=1, read_timeout=30, timeout=30),
    "dynamodb_local": lambda url: Connection(url, read_timeout=30, timeout=30),
}
"""Adapters on a server, by the name of the fixture that runs it; patient, since two cores do all the work."""

_numbers = count(1)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


POSTGRES = "postgres"
STORES = (*ADAPTERS, *DATABASES, POSTGRES)
# moto copies all of its tables for each transaction: gigabytes, where there are a thousand entities.
without_moto = pytest.mark.parametrize("store", [name for name in STORES if name != "moto"], indirect=True)


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    """An empty store of each adapter in turn."""
    drop: Callable[[], Any] | None = None
    if request.param == POSTGRES:
        server = request.getfixturevalue(POSTGRES)
        await empty(server)
        made: Store = on_postgres(server, clock)
    elif request.param in DATABASES:
        connection = DATABASES[request.param](request.getfixturevalue(request.param))
        table = new_table(connection)
        made = on_dynamodb(connection, clock, table)
        drop = partial(_client(connection).delete_table, TableName=table)
    else:
        made = ADAPTERS[request.param](tmp_path, clock)
    yield made
    await made.close()
    if drop is not None:
        drop()


def on_dynamodb(connection: Connection, clock: Clock, table: str = "", faults: Faults | None = None) -> DynamoDBStore:
    """A store on a table of its own, or on `table`; `faults` get between it and the database."""
    name = table or new_table(connection)
    make = (lambda it: faults.spoil(make_client(it))) if faults else _client
    return DynamoDBStore(name, MAPPINGS, clock, connection, database=Database(connection, make=make))


def on_postgres(
    server: PostgresServer, clock: Clock, database: PostgresDatabase | None = None, **parameters: Any
) -> PostgresStore:
    """A store in the schema `test`, which other stores may share."""
    given: dict[str, Any] = {"timeout": 30, **parameters}
    connection = PostgresConnection(postgres_url(server.urls.domains).url, "shop_test", lambda: None, **given)
    return PostgresStore("test", MAPPINGS, clock, connection, database=database)


async def empty(server: PostgresServer) -> None:
    """Remove all rows of the schema `test`."""
    import asyncpg

    connection = await asyncpg.connect(server.urls.admin)
    try:
        await connection.execute(
            "DELETE FROM test.entity; DELETE FROM test.entry; DELETE FROM test.outbox; DELETE FROM test.guard;"
            "UPDATE test.store SET version = 2, serves = 1, epoch = 0"
        )
    finally:
        await connection.close()


def new_table(connection: Connection) -> str:
    """The name of a fresh table."""
    name = f"test-{getpid()}-{next(_numbers)}"
    create(_client(connection), name)
    return name


@cache
def _client(connection: Connection) -> Any:
    return make_client(connection)  # 0.1 s each: the tests share them


Opener = Callable[..., DynamoDBStore]


@pytest.fixture
def connection(dynamodb_local: str) -> Connection:
    """How to reach a DynamoDB Local."""
    return DATABASES["dynamodb_local"](dynamodb_local)


@pytest.fixture
async def opened(connection: Connection, clock: ManualClock) -> AsyncIterator[Opener]:
    """Opens stores of one table, as several processes have: `opened(faults=None, connection=connection)`."""
    table, stores = new_table(connection), list[DynamoDBStore]()

    def open_one(faults: Faults | None = None, connection: Connection = connection) -> DynamoDBStore:
        stores.append(on_dynamodb(connection, clock, table, faults))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.close()


def in_another_process(opened: Opener, work: Callable[[DynamoDBStore], Any]) -> None:
    """Do it now, in this thread, with a store and a loop of its own."""

    async def run() -> None:
        store = opened()
        await work(store)

    asyncio.run(run())
