"""The outbox of every store, what it tells its listeners, what it forgets in time, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from events.outbox import OutboxRow
from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError, failed_precondition
from functions.runtime.store.port import AlreadyDone, Changes, IdempotencyRecord, Store
from functions.runtime.tests.store_fixtures import clock, store
from functions.runtime.tests.store_kinds import Counter, Document, adding, happened, inbox_record, put
from functions.runtime.tests.support import recorded
from observability import context

__all__ = ["clock", "store"]

FOREVER = datetime.max.replace(tzinfo=UTC)


async def test_events_wait_in_the_outbox_as_cloudevents_of_their_work(store: Store, clock: ManualClock) -> None:
    work = context.incoming("correlation-1", "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "k=v")
    with context.use(work):
        await store.update(Counter, "c", adding(events=[happened(3)]))

    [row] = await store.outbox(FOREVER, 10)
    assert row == OutboxRow(
        row.id, "shop.product.stock.low.v1", "/products", f"prd_{3:032x}", clock.now(), row.data,
        "correlation-1", work.traceparent, "k=v",
    )  # fmt: skip
    assert row.id[14] == "7"
    assert await recorded(store) == [happened(3)]


async def test_concurrent_work_keeps_its_own_correlation_id(store: Store) -> None:
    async def work(number: int) -> None:
        with context.use(context.incoming(f"correlation-{number}", None)):
            await store.update(Counter, str(number), lambda _: (Counter(str(number)), [happened(number)]))

    await asyncio.gather(*(work(number) for number in range(1, 20)))

    rows = await store.outbox(FOREVER, 100)
    assert {(row.correlation_id, row.subject) for row in rows} == {
        (f"correlation-{number}", f"prd_{number:032x}") for number in range(1, 20)
    }


async def test_the_outbox_is_read_oldest_first_and_up_to_a_time(store: Store, clock: ManualClock) -> None:
    start = clock.now()
    for number in range(1, 7):
        await store.update(Counter, "c", adding(events=[happened(number), happened(number + 100)]))
        clock.advance(timedelta(seconds=1))

    rows = await store.outbox(FOREVER, 100)
    assert [int(row.subject[4:], 16) for row in rows] == [1, 101, 2, 102, 3, 103, 4, 104, 5, 105, 6, 106]
    assert await store.outbox(start + timedelta(seconds=2), 100) == rows[:4]
    assert await store.outbox(FOREVER, 3) == rows[:3]


async def test_published_rows_leave_the_outbox(store: Store, clock: ManualClock) -> None:
    assert await store.outbox_state() == (0, None)
    written = clock.now()
    await store.update(Counter, "c", adding(events=[happened()] * 250))
    clock.advance(timedelta(seconds=1))
    await store.update(Counter, "c", adding(events=[happened()]))
    rows = await store.outbox(FOREVER, 1000)
    assert await store.outbox_state() == (251, written)

    await store.outbox_published([row.id for row in rows[:250]] + ["unknown"])
    await store.outbox_published([rows[0].id])

    assert await store.outbox(FOREVER, 1000) == rows[250:]
    assert await store.outbox_state() == (1, clock.now())


async def test_listeners_hear_of_every_commit_and_of_nothing_else(store: Store) -> None:
    heard: list[OutboxRow] = []

    def deaf(_: Sequence[OutboxRow]) -> None:
        raise RuntimeError("a listener's fault is not the caller's")

    store.on_commit(deaf)
    store.on_commit(heard.extend)

    def refuse(_: Counter | None) -> tuple[Counter, Sequence[Any]]:
        raise failed_precondition("NO", "No.")

    await store.update(Counter, "c", adding(events=[happened(1), happened(2)]), idempotency=inbox_record("m"))
    with pytest.raises(AlreadyDone):
        await store.update(Counter, "c", adding(events=[happened(3)]), idempotency=inbox_record("m"))
    with pytest.raises(ServiceError):
        await store.update(Counter, "c", refuse)

    assert heard == await store.outbox(FOREVER, 10)
    assert len(heard) == 2


async def test_what_has_expired_is_removed_and_nothing_else(store: Store, clock: ManualClock) -> None:
    for number in range(6):
        ends = clock.now() + timedelta(hours=number) if number else None
        await put(store, Document(f"d{number}", text="words", ends=ends))
    await store.update(Counter, "c", adding(), idempotency=IdempotencyRecord("short", timedelta(hours=1), "f", Counter))
    await store.update(Counter, "c", adding(), idempotency=inbox_record("long"))

    assert await store.expire(clock.now() + timedelta(hours=2, microseconds=-1)) == 2
    assert await store.expire(clock.now() + timedelta(hours=2)) == 1

    left = [document.id for document in (await store.page(Document, "words", "words", limit=10)).items]
    assert left == ["d0", "d3", "d4", "d5"]
    assert list(await store.get_many(Document, [f"d{n}" for n in range(6)])) == left


async def test_an_entity_whose_end_is_put_off_stays(store: Store, clock: ManualClock) -> None:
    await put(store, Document("a", ends=clock.now()), Document("b", ends=clock.now()))
    await put(store, Document("a", ends=clock.now() + timedelta(hours=1)), Document("b", ends=None))

    assert await store.expire(clock.now()) == 0


async def test_expiry_removes_no_more_than_asked_at_once(store: Store, clock: ManualClock) -> None:
    for number in range(7):
        await put(store, Document(str(number), ends=clock.now()))
        await store.transact([], lambda _: Changes(None), idempotency=IdempotencyRecord(f"k{number}", timedelta(0)))

    assert [await store.expire(clock.now(), 5) for _ in range(4)] == [5, 5, 4, 0]


async def test_a_closed_store_is_unavailable(store: Store) -> None:
    await store.ping()
    await store.close()

    for use in (store.ping(), store.get(Counter, "c"), store.update(Counter, "c", adding())):
        with pytest.raises(ServiceError) as caught:
            await use
        assert caught.value.code is Code.UNAVAILABLE
