"""DynamoDB at rest: expiry that lags, limits of a transaction, the outbox's shards, and what operations cost."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError
from functions.runtime.store.dynamodb import layout
from functions.runtime.store.dynamodb.client import Connection, NoTransactions, make_client
from functions.runtime.store.dynamodb.store import DynamoDBStore
from functions.runtime.store.dynamodb.transactions import TooLarge
from functions.runtime.store.port import Changes, IdempotencyRecord, Ref
from functions.runtime.tests.store_faults import Faults, after, refused
from functions.runtime.tests.store_fixtures import Opener, clock, connection, in_another_process, opened
from functions.runtime.tests.store_kinds import (
    MAPPINGS,
    Counter,
    Document,
    adding,
    happened,
    inbox_record,
    put,
)
from functions.runtime.tests.support import recorded

__all__ = ["clock", "connection", "opened"]

FOREVER = datetime.max.replace(tzinfo=UTC)


async def test_entries_left_behind_by_an_entity_that_dynamodb_removed_are_not_listed(
    opened: Opener, connection: Connection, clock: ManualClock
) -> None:
    store = opened()
    await put(store, *(Document(key, owner="me", rank=key) for key in "abcd"))
    client = make_client(connection)
    for key in "bc":
        client.delete_item(TableName=store._table.name, Key=layout.entity_key("document", key))

    page = await store.page(Document, "owner", "me", limit=2)
    assert ([document.id for document in page.items], page.next_cursor) == (["a", "d"], None)


async def test_what_leaves_a_listing_while_it_is_read_is_not_listed(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)
    await put(store, *(Document(key, owner="me") for key in "abc"))

    async def move(other: DynamoDBStore) -> None:
        await put(other, Document("b", owner="you"))

    faults.next("BatchGetItem", after(lambda: in_another_process(opened, move)))

    assert [document.id for document in (await store.page(Document, "owner", "me", limit=5)).items] == [
        "a",
        "c",
    ]


async def test_entries_end_when_their_entity_does(opened: Opener, connection: Connection, clock: ManualClock) -> None:
    store = opened()
    await put(store, Document("d", owner="me", text="words"))
    await put(store, Document("d", owner="me", text="words", ends=clock.now() + timedelta(hours=1)))

    items = make_client(connection).scan(TableName=store._table.name)["Items"]

    assert len(items) == 3
    seconds = str(int(clock.now().timestamp()) + 3600)
    assert [item["ttl"] for item in items] == [{"N": seconds}] * 3


async def test_a_guard_that_was_put_anew_outlives_the_sweep_of_the_old_one(opened: Opener, clock: ManualClock) -> None:
    faults = Faults()
    store = opened(faults)
    idempotency = IdempotencyRecord("key", timedelta(hours=1), "f", Counter)
    await store.update(Counter, "c", adding(), idempotency=idempotency)
    clock.advance(timedelta(hours=1))

    async def again(other: DynamoDBStore) -> None:
        await other.update(Counter, "c", adding(), idempotency=idempotency)

    faults.next("TransactWriteItems", after(lambda: in_another_process(opened, again)))

    assert await store.expire(clock.now()) == 0
    assert (await store.update(Counter, "c", adding(), idempotency=idempotency)).left == 2


async def test_more_than_dynamodb_changes_at_once_is_refused_in_clear_words(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)
    refs = [Ref(Counter, str(number)) for number in range(101)]

    with pytest.raises(TooLarge, match="101 items"):
        await store.transact(refs, lambda _: Changes(None, put=[Counter(ref.id) for ref in refs]))

    assert "TransactWriteItems" not in faults.calls


async def test_many_events_of_a_large_transaction_share_items_and_leave_one_by_one(opened: Opener) -> None:
    store = opened()
    refs = [Ref(Counter, str(number)) for number in range(60)]
    events = [happened(number) for number in range(1, 61)]
    await store.transact(
        refs,
        lambda _: Changes(None, put=[Counter(ref.id) for ref in refs], events=events),
        idempotency=inbox_record("m"),
    )
    rows = await store.outbox(FOREVER, 100)
    assert (len(rows), await recorded(store)) == (60, events)
    assert (await store.outbox_state())[0] == 60

    await store.outbox_published([row.id for row in rows[:59]])
    assert await store.outbox(FOREVER, 100) == rows[59:]
    assert (await store.outbox_state())[0] == 1

    assert len(await opened().outbox(FOREVER, 100)) == 60  # another process knows of the whole only
    await store.outbox_published([rows[59].id])
    assert await opened().outbox_state() == (0, None)


async def test_the_outbox_is_read_in_order_across_its_shards(opened: Opener) -> None:
    store = opened()
    for start in range(1, 1000, 90):
        events = [happened(number) for number in range(start, start + 90)]
        await store.update(Counter, "c", adding(events=events))

    rows = await store.outbox(FOREVER, 1000)
    assert [int(row.subject[4:], 16) for row in rows] == list(range(1, 1001))
    assert await store.outbox(FOREVER, 7) == rows[:7]


async def test_each_operation_costs_few_calls_and_never_a_scan(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)
    cost: dict[str, list[str]] = {}

    async def measure(name: str, work: Any) -> None:
        del faults.calls[:]
        await work
        cost[name] = sorted(faults.calls)

    await store.epoch()  # asked for once in a store's life
    document = Document("d", owner="me", text="red shoe")
    await measure("update", store.update(Document, "d", lambda _: (replace(document), [happened()])))
    await measure("marked", store.update(Counter, "c", adding(), idempotency=inbox_record("m")))
    await measure("get", store.get(Document, "d"))
    await put(store, Document("e", owner="me"))
    await measure("get_many", store.get_many(Document, ["d", "e"]))
    await measure("page", store.page(Document, "owner", "me", limit=2))
    [row] = await store.outbox(FOREVER, 5)
    await measure("published", store.outbox_published([row.id]))

    assert cost == {
        "update": ["GetItem", "TransactWriteItems"],
        "marked": ["BatchGetItem", "TransactWriteItems"],
        "get": ["GetItem"],
        "get_many": ["BatchGetItem"],
        "page": ["BatchGetItem", "Query"],
        "published": ["BatchWriteItem"],
    }


async def test_what_has_too_long_an_id_is_refused_as_the_callers_mistake(opened: Opener) -> None:
    store = opened()
    for write in (
        store.update(Counter, "c" * 2049, adding(key="c" * 2049)),
        store.update(Counter, "c", adding(), idempotency=inbox_record("m" * 2049)),
    ):
        with pytest.raises(ServiceError) as caught:
            await write
        assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "ID_TOO_LONG")
    assert await store.get(Counter, "c") is None


async def test_in_development_tables_that_are_gone_are_made_again(connection: Connection, clock: ManualClock) -> None:
    store = DynamoDBStore("forgetful", MAPPINGS, clock, connection, create_table=True)
    await store.update(Counter, "c", adding())
    make_client(connection).delete_table(TableName="forgetful")  # as a DynamoDB Local in memory forgets it

    assert await store.get(Counter, "c") is None
    found = await asyncio.gather(*(store.update(Counter, f"c{n}", adding(key=f"c{n}")) for n in range(20)))
    assert {counter.version for counter in found} == {1}
    await store.close()


async def test_a_database_without_transactions_is_never_ready(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)
    for _ in range(2):
        faults.next("TransactWriteItems", refused("UnknownOperationException"))
        with pytest.raises(NoTransactions, match="Alternator"):
            await store.ping()
    faults.next("TransactWriteItems", refused("UnknownOperationException"))
    with pytest.raises(NoTransactions):
        await store.update(Counter, "c", adding())

    await store.ping()
    calls = len(faults.calls)
    await store.ping()
    assert faults.calls[calls:] == ["GetItem"], "it is asked once"
