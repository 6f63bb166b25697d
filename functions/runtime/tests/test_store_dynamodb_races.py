"""DynamoDB under way: races between processes, lost answers, conflicts, throttling, callers that go away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from events.outbox import OutboxRow
from functions.runtime.errors import Code, ServiceError
from functions.runtime.store.dynamodb.client import Connection
from functions.runtime.store.dynamodb.store import DynamoDBStore
from functions.runtime.store.port import AlreadyDone, Changes, Ref
from functions.runtime.tests.store_faults import Faults, after, cancelled, held, lost, refused
from functions.runtime.tests.store_fixtures import Opener, clock, connection, in_another_process, opened
from functions.runtime.tests.store_kinds import Counter, Document, adding, filled, happened, inbox_record, put
from functions.runtime.tests.support import recorded

__all__ = ["clock", "connection", "opened"]

FOREVER = datetime.max.replace(tzinfo=UTC)


def taking(counter: Counter | None) -> tuple[Counter, Sequence[Any]]:
    assert counter
    counter.take()
    return counter, [happened(counter.left + 1)]


async def test_a_hundred_takings_from_several_processes_count_once_each(opened: Opener) -> None:
    stores = [opened() for _ in range(4)]
    await stores[0].update(Counter, "c", lambda _: (filled(60), ()))

    answers = await asyncio.gather(
        *(stores[n % 4].update(Counter, "c", taking) for n in range(100)), return_exceptions=True
    )

    refusals = [answer for answer in answers if isinstance(answer, ServiceError)]
    assert {refusal.reason for refusal in refusals} == {"OUT_OF_STOCK"}
    assert (len(answers) - len(refusals), len(refusals)) == (60, 40)
    assert await stores[1].get(Counter, "c") == Counter("c", 0, version=61)
    assert len(await recorded(stores[2])) == 60


@pytest.mark.parametrize("times", [1, 3])
async def test_a_transaction_whose_answer_is_lost_counts_once(opened: Opener, times: int) -> None:
    faults = Faults()
    store = opened(faults)
    faults.next("TransactWriteItems", *[lost] * times)

    made = await store.update(Counter, "c", adding(events=[happened()]))

    assert made == await store.get(Counter, "c") == Counter("c", 1, version=1)
    assert len(await recorded(store)) == 1
    sent = [body["ClientRequestToken"] for body in faults.bodies if "ClientRequestToken" in body]
    assert len(sent) == times + 1
    assert len(set(sent)) == 1


async def test_what_may_have_been_done_keeps_its_token_through_a_conflict(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)
    faults.next("TransactWriteItems", lost, cancelled("TransactionConflict"))

    await store.update(Counter, "c", adding())

    assert await store.get(Counter, "c") == Counter("c", 1, version=1)


@pytest.mark.parametrize(
    "fault",
    [
        cancelled("None", "TransactionConflict"),
        cancelled("ThrottlingError", "None"),
        refused("ThrottlingException"),
        refused("ProvisionedThroughputExceededException"),
        refused("TransactionInProgressException"),
        refused("InternalServerError", 500),
    ],
)
async def test_conflicts_and_throttling_are_tried_again(opened: Opener, fault: Any) -> None:
    faults = Faults()
    store = opened(faults)
    await store.epoch()  # asked for once in a store's life
    faults.calls.clear()
    faults.next("TransactWriteItems", fault, fault)

    assert await store.update(Counter, "c", adding()) == Counter("c", 1, version=1)
    assert faults.calls.count("TransactWriteItems") == 3
    assert faults.calls.count("GetItem") == 1


async def test_throttled_reads_are_tried_again(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)
    await put(store, Document("d", owner="me"), Document("e", owner="me"))
    for operation in ("GetItem", "Query", "BatchGetItem"):
        faults.next(operation, refused("ThrottlingException"))

    assert await store.get(Document, "d")
    assert len((await store.page(Document, "owner", "me", limit=10)).items) == 2


async def test_who_throttles_for_good_is_unavailable(opened: Opener, connection: Connection) -> None:
    faults = Faults()
    store = opened(faults, connection._replace(first_pause=0.001, attempts=4))
    faults.next("GetItem", *[refused("ThrottlingException")] * 4)

    with pytest.raises(ServiceError) as caught:
        await store.get(Counter, "c")

    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert faults.calls == ["GetItem"] * 4


async def test_parts_of_batches_that_were_left_undone_are_done(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)
    ids = [f"c{number}" for number in range(3)]
    for key in ids:
        await store.update(Counter, key, adding(key=key, events=[happened()]))
    rows = await store.outbox(FOREVER, 10)
    _leave_undone(faults, "BatchGetItem", "Keys", "UnprocessedKeys")
    _leave_undone(faults, "BatchWriteItem", None, "UnprocessedItems")

    assert list(await store.get_many(Counter, ids)) == ids
    await store.outbox_published([row.id for row in rows])

    assert await store.outbox_state() == (0, None)
    assert (faults.calls.count("BatchGetItem"), faults.calls.count("BatchWriteItem")) == (2, 2)


def _leave_undone(faults: Faults, operation: str, inner: str | None, name: str) -> None:
    def answer(_: Callable[[], Any]) -> Any:
        asked = faults.bodies[-1]["RequestItems"]
        response = refused("", 200, Responses={}, **{name: asked})
        assert inner is None or all(inner in of_table for of_table in asked.values())
        return response(_)

    faults.next(operation, answer)


async def test_what_was_only_read_is_still_so_when_the_rest_is_written(opened: Opener) -> None:
    faults = Faults()
    store, other = opened(faults), opened()
    await other.update(Counter, "closed", lambda _: (Counter("closed", 0), ()))

    def place(found: Sequence[Any]) -> Changes[str]:
        if found[1].left:
            return Changes("refused")
        return Changes("placed", put=[Counter("order")])

    faults.next("TransactWriteItems", after(lambda: _elsewhere(opened, "closed")))

    assert await store.transact([Ref(Counter, "order"), Ref(Counter, "closed")], place) == "refused"
    assert await store.get(Counter, "order") is None


async def test_what_was_absent_is_still_absent_when_the_rest_is_written(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)

    def place(found: Sequence[Any]) -> Changes[str]:
        return Changes("refused") if found[1] else Changes("placed", put=[Counter("order")])

    faults.next("TransactWriteItems", after(lambda: _elsewhere(opened, "tombstone")))

    assert await store.transact([Ref(Counter, "order"), Ref(Counter, "tombstone")], place) == "refused"


async def test_a_namesake_made_anew_is_another(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)
    await store.update(Counter, "c", lambda _: (filled(5), ()))

    async def replace_it(other: DynamoDBStore) -> None:
        await other.transact([Ref(Counter, "c")], lambda found: Changes(None, delete=found))
        await other.update(Counter, "c", lambda _: (filled(100), ()))

    faults.next("TransactWriteItems", after(lambda: in_another_process(opened, replace_it)))

    assert await store.update(Counter, "c", adding()) == Counter("c", 101, version=2)


async def test_a_mark_that_another_process_sets_meanwhile_counts(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)

    async def first(other: DynamoDBStore) -> None:
        await other.update(Counter, "c", adding(10), idempotency=inbox_record("m"))

    faults.next("TransactWriteItems", after(lambda: in_another_process(opened, first)))

    with pytest.raises(AlreadyDone):
        await store.update(Counter, "c", adding(), idempotency=inbox_record("m"))
    assert await store.get(Counter, "c") == Counter("c", 10, version=1)


def _elsewhere(opened: Opener, key: str) -> None:
    async def change(other: DynamoDBStore) -> None:
        await other.update(Counter, key, adding(key=key))

    in_another_process(opened, change)


async def test_the_loop_runs_on_while_the_database_is_slow(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)
    await store.ping()
    asked, answers = held(faults, "GetItem")

    reading = asyncio.create_task(store.get(Counter, "c"))
    await asyncio.to_thread(asked.wait, 20)
    answers.set()  # were the loop blocked, nobody would come here

    assert await reading is None


async def test_listeners_hear_of_a_commit_whose_caller_has_gone(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)
    heard: list[OutboxRow] = []
    store.on_commit(heard.extend)
    asked, answers = held(faults, "TransactWriteItems")

    writing = asyncio.create_task(store.update(Counter, "c", adding(events=[happened()])))
    await asyncio.to_thread(asked.wait, 20)
    writing.cancel()
    await asyncio.wait([writing])
    answers.set()
    await store.close()

    assert writing.cancelled()
    assert len(heard) == 1
