"""The adapters that the contract suite runs over: one line each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import cache
from itertools import count
from os import getpid
from pathlib import Path
from typing import Any

import pytest

from functions.runtime.clock import Clock, ManualClock
from functions.runtime.store.dynamodb import DynamoDBStore
from functions.runtime.store.dynamodb_client import Connection, Database, make_client
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import Store
from functions.runtime.store.sqlite import SQLiteStore
from functions.runtime.store.tables import create
from functions.runtime.tests.store_kinds import KINDS

ADAPTERS: dict[str, Callable[[Path, Clock], Store]] = {
    "memory": lambda _, clock: MemoryStore(KINDS, clock),
    "memory-racing": lambda _, clock: MemoryStore(KINDS, clock, lost_races=1),
    "sqlite": lambda path, clock: SQLiteStore(path / "store.db", KINDS, clock),
}
DATABASES: dict[str, Callable[[str], Connection]] = {
    # One call at a time: moto's transactions do not bear others beside them.
    "moto": lambda url: Connection(url, threads=1, read_timeout=30, patience=30),
    "dynamodb_local": lambda url: Connection(url, read_timeout=30, patience=30),
}
"""Adapters on a server, by the name of the fixture that runs it; patient, since two cores do all the work."""

_numbers = count(1)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture(params=[*ADAPTERS, *DATABASES])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    """An empty store of each adapter in turn."""
    if request.param in DATABASES:
        connection = DATABASES[request.param](request.getfixturevalue(request.param))
        made: Store = on_dynamodb(connection, clock)
    else:
        made = ADAPTERS[request.param](tmp_path, clock)
    yield made
    await made.close()


def on_dynamodb(
    connection: Connection, clock: Clock, table: str = "", wrap: Callable[[Any], Any] = lambda client: client
) -> DynamoDBStore:
    """A store on a table of its own, or on `table`; `wrap` gets between it and boto3's client."""
    name = table or new_table(connection)
    database = Database(connection, make=lambda it: wrap(_client(it)))
    return DynamoDBStore(name, KINDS, clock, connection, database=database)


def new_table(connection: Connection) -> str:
    """The name of a fresh table."""
    name = f"test-{getpid()}-{next(_numbers)}"
    create(_client(connection), name)
    return name


@cache
def _client(connection: Connection) -> Any:
    return make_client(connection)  # 0.1 s each: the tests share them
