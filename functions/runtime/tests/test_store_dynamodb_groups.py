"""Transactions that meet over the same things on DynamoDB: joined, and yet each by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from functions.runtime.errors import Code, ServiceError
from functions.runtime.store.dynamodb.client import Connection, Refused
from functions.runtime.store.groups import Groups, Job
from functions.runtime.store.planning import Request
from functions.runtime.store.port import AlreadyDone, Changes, Ref
from functions.runtime.tests.store_faults import Faults, held, refused
from functions.runtime.tests.store_fixtures import Opener, clock, connection, opened
from functions.runtime.tests.store_kinds import Counter, Document, adding, filled, happened, inbox_record, put
from functions.runtime.tests.support import recorded
from observability import context

__all__ = ["clock", "connection", "opened"]

FOREVER = datetime.max.replace(tzinfo=UTC)


def taking(counter: Counter | None) -> tuple[Counter, Sequence[Any]]:
    assert counter
    counter.take()
    return counter, [happened()]


def order(number: int) -> Any:
    """Takes one of the counter for an order of its own."""

    def change(found: Sequence[Any]) -> Changes[int]:
        found[0].take()
        return Changes(found[0].left, put=[found[0], Document(f"o{number}", owner="me")], events=[happened()])

    return change


async def test_two_hundred_orders_of_one_product_are_a_few_transactions(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)
    await store.update(Counter, "c", lambda _: (filled(50), ()))
    del faults.calls[:]

    answers = await asyncio.gather(
        *(
            store.transact([Ref(Counter, "c"), Ref(Document, f"o{n}")], order(n), idempotency=inbox_record(f"{n}"))
            for n in range(200)
        ),
        return_exceptions=True,
    )

    sold = [answer for answer in answers if isinstance(answer, int)]
    assert sorted(sold) == list(range(50))
    assert {it.reason for it in answers if isinstance(it, ServiceError)} == {"OUT_OF_STOCK"}
    assert faults.calls.count("TransactWriteItems") <= 6
    assert await store.get(Counter, "c") == Counter("c", 0, version=51)
    assert len((await store.page(Document, "owner", "me", limit=100)).items) == 50
    assert len(await recorded(store)) == 50


async def test_what_has_nothing_in_common_is_not_joined(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)
    await store.ping()
    faults.calls.clear()

    await asyncio.gather(*(store.update(Counter, key, adding(key=key)) for key in "abcde"))

    assert faults.calls.count("TransactWriteItems") == 5


async def test_deliveries_of_one_event_that_meet_in_a_group_have_one_effect(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)
    asked, answers = held(faults, "GetItem")
    first = asyncio.create_task(store.update(Counter, "c", adding()))
    await asyncio.to_thread(asked.wait, 20)
    others = [
        asyncio.create_task(store.update(Counter, "c", adding(), idempotency=inbox_record("m"))) for _ in range(5)
    ]
    await asyncio.sleep(0)
    answers.set()

    results = await asyncio.gather(first, *others, return_exceptions=True)

    assert [type(result) for result in results].count(AlreadyDone) == 4
    assert await store.get(Counter, "c") == Counter("c", 2, version=2)


async def test_made_and_removed_in_one_group_leaves_nothing(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)
    asked, answers = held(faults, "GetItem")
    work: list[asyncio.Task[Any]] = [asyncio.create_task(store.update(Document, "d", lambda _: (Document("d"), ())))]
    await asyncio.to_thread(asked.wait, 20)
    delete = [Ref(Document, "d")]
    for change in (
        lambda found: Changes(None, delete=found),
        lambda _: Changes(None, put=[Document("d", owner="me")]),
        lambda found: Changes(None, delete=found),
    ):
        work.append(asyncio.create_task(store.transact(delete, change)))
    await asyncio.sleep(0)
    answers.set()
    await asyncio.gather(*work)

    assert await store.get(Document, "d") is None
    assert (await store.page(Document, "owner", "me", limit=10)).items == []
    assert faults.calls.count("TransactWriteItems") == 2


async def test_a_refusal_that_rests_on_what_was_not_committed_is_not_told(
    opened: Opener, connection: Connection
) -> None:
    faults = Faults()
    store = opened(faults, connection._replace(attempts=1))
    await store.update(Counter, "c", lambda _: (filled(2), ()))
    asked, answers = held(faults, "GetItem")
    first = asyncio.create_task(store.update(Counter, "c", taking))
    await asyncio.to_thread(asked.wait, 20)
    others = [asyncio.create_task(store.update(Counter, "c", taking)) for _ in range(2)]
    await asyncio.sleep(0)
    faults.next("TransactWriteItems", lambda _: None, refused("ThrottlingException"))
    answers.set()

    await first
    for other in others:
        with pytest.raises(ServiceError) as caught:
            await other
        assert caught.value.code is Code.UNAVAILABLE
    assert await store.get(Counter, "c") == Counter("c", 1, version=2)


async def test_who_asks_for_what_cannot_be_harms_no_other(opened: Opener) -> None:
    store = opened()
    await put(store, Document("d"))

    async def write(text: str) -> Document:
        def change(document: Document | None) -> tuple[Document, Sequence[Any]]:
            assert document
            document.tags[text[:9]] = [text]
            return document, [happened()]

        return await store.update(Document, "d", change)

    texts = ["first", "second", "x" * 500_000, "third"]  # DynamoDB takes items of 400 KB
    answers = await asyncio.gather(*map(write, texts), return_exceptions=True)

    assert [type(answer) for answer in answers] == [Document, Document, Refused, Document]
    left = await store.get(Document, "d")
    assert left
    assert left.tags == {"first": ["first"], "second": ["second"], "third": ["third"]}


async def test_events_of_a_group_keep_the_correlation_id_of_their_own_work(opened: Opener) -> None:
    store = opened()
    await store.update(Counter, "c", adding(100))

    async def work(number: int) -> None:
        with context.use(context.incoming(f"correlation-{number}", None)):
            await store.update(Counter, "c", adding(events=[happened(number)]))

    await asyncio.gather(*(work(number) for number in range(1, 20)))

    rows = await store.outbox(FOREVER, 100)
    assert {(row.correlation_id, int(row.subject[4:], 16)) for row in rows} == {
        (f"correlation-{number}", number) for number in range(1, 20)
    }


async def test_who_goes_away_while_waiting_takes_the_work_back(opened: Opener) -> None:
    faults = Faults()
    store = opened(faults)
    asked, answers = held(faults, "GetItem")
    first = asyncio.create_task(store.update(Counter, "c", adding()))
    await asyncio.to_thread(asked.wait, 20)
    waiting = asyncio.create_task(store.update(Counter, "c", adding()))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    answers.set()
    await first
    await store.close()

    assert await opened().get(Counter, "c") == Counter("c", 1, version=1)


async def test_who_waits_too_long_for_others_is_told_so_and_does_not_hold_up_the_next() -> None:
    ends, ran = asyncio.Event(), list[Job]()

    async def run(jobs: Sequence[Job]) -> Sequence[Job]:
        ran.extend(jobs)
        await ends.wait()
        for job in jobs:
            job.succeed("done")
        return ()

    def job(seconds: float) -> Job:
        request = Request([], lambda _: Changes(None), None, context.current())
        return Job(request, ["key"], asyncio.get_running_loop().time() + seconds)

    groups = Groups(run)
    first, late, patient = job(60), job(0.01), job(60)
    others = [asyncio.create_task(groups.run(it)) for it in (first, patient)]
    await asyncio.sleep(0)
    with pytest.raises(ServiceError) as caught:
        await groups.run(late)
    ends.set()

    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert await asyncio.gather(*others) == ["done", "done"]
    assert ran == [first, patient]
    await groups.close()
