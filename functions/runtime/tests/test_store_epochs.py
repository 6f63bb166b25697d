"""A new epoch, over every store: what was issued in the life before is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from functions.runtime.clock import ManualClock
from functions.runtime.errors import ServiceError
from functions.runtime.store.dynamodb.client import Connection, make_client
from functions.runtime.store.epochs import begin_in_file, begin_in_table, next_epoch
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import IdempotencyRecord, Store
from functions.runtime.store.sqlite.store import SQLiteStore
from functions.runtime.tests.store_fixtures import DATABASES, new_table, on_dynamodb
from functions.runtime.tests.store_kinds import MAPPINGS, Counter, Document, adding, put

Restored = Callable[[], Awaitable[Store]]


@pytest.fixture(params=["memory", "sqlite", "moto"])
async def restored(request: pytest.FixtureRequest, tmp_path: Path) -> Restored:
    """Opens the store of the test: the second time, and each time after it, in a new epoch."""
    clock = ManualClock()
    if request.param == "memory":
        return _in_memory(MemoryStore(MAPPINGS, clock))
    if request.param == "sqlite":
        return _in_a_file(tmp_path / "store.db", clock)
    return _in_a_table(DATABASES["moto"](request.getfixturevalue("moto")), clock)


def _in_memory(store: MemoryStore) -> Restored:
    opened: list[MemoryStore] = []

    async def reopen() -> Store:
        if opened:
            store.begin_epoch()
        opened.append(store)
        return store

    return reopen


def _in_a_file(path: Path, clock: ManualClock) -> Restored:
    opened: list[Store] = []

    async def reopen() -> Store:
        if opened:
            await opened[-1].close()
            begin_in_file(path)
        opened.append(SQLiteStore(path, MAPPINGS, clock))
        return opened[-1]

    return reopen


def _in_a_table(connection: Connection, clock: ManualClock) -> Restored:
    table = new_table(connection)
    opened: list[Store] = []

    async def reopen() -> Store:
        if opened:
            await opened[-1].close()
            begin_in_table(make_client(connection), table)
        opened.append(on_dynamodb(connection, clock, table))
        return opened[-1]

    return reopen


async def test_a_version_stands_for_one_content_in_all_lives(restored: Restored) -> None:
    store = await restored()
    await store.update(Counter, "c", adding())
    store = await restored()  # as of now; that the life before went on to version 2 is not known here
    assert await store.get(Counter, "c") == Counter("c", 1, version=1)

    changed = await store.update(Counter, "c", adding(10))
    made = await store.update(Counter, "d", adding(key="d"))
    assert changed.version == made.version == await store.epoch() + 1 > 1_000_000_000_000
    assert (await store.update(Counter, "c", adding())).version == changed.version + 1

    again = await restored()
    assert (await again.update(Counter, "c", adding())).version > changed.version + 1
    await again.close()


async def test_a_cursor_of_the_life_before_is_refused(restored: Restored) -> None:
    store = await restored()
    await put(store, *(Document(key, owner="me", rank=key) for key in "abc"))
    before = (await store.page(Document, "owner", "me", limit=1)).next_cursor
    store = await restored()

    with pytest.raises(ServiceError) as refused:
        await store.page(Document, "owner", "me", limit=1, cursor=before)
    assert refused.value.reason == "INVALID_CURSOR"

    after = (await store.page(Document, "owner", "me", limit=1)).next_cursor
    page = await store.page(Document, "owner", "me", limit=1, cursor=after)
    assert [document.id for document in page.items] == ["b"]
    await store.close()


async def test_what_was_done_once_before_the_backup_stays_done(restored: Restored) -> None:
    store = await restored()
    idempotency = IdempotencyRecord("key", timedelta(hours=1), "f", Counter)
    first = await store.update(Counter, "c", adding(), idempotency=idempotency)
    store = await restored()
    assert await store.update(Counter, "c", adding(), idempotency=idempotency) == first
    await store.close()


def test_an_epoch_is_above_the_one_before_even_when_the_clock_was_set_back() -> None:
    clock = ManualClock()
    first = next_epoch(0, clock.now())
    clock.advance(timedelta(days=-1))
    assert next_epoch(first, clock.now()) == first + 1
