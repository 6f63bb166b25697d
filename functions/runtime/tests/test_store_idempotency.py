"""Guards of every store: inbox marks and idempotency records commit with the state, or not at all."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError
from functions.runtime.store.port import AlreadyDone, Changes, IdempotencyRecord, Ref, Store
from functions.runtime.tests.store_fixtures import clock, store
from functions.runtime.tests.store_kinds import Counter, adding, happened, inbox_record
from functions.runtime.tests.support import recorded

__all__ = ["clock", "store"]

FOREVER = datetime.max.replace(tzinfo=UTC)


async def test_an_inbox_mark_lets_an_effect_happen_once(store: Store) -> None:
    await store.update(Counter, "c", adding(), idempotency=inbox_record("m"))

    with pytest.raises(AlreadyDone):
        await store.update(Counter, "c", adding(), idempotency=inbox_record("m"))

    await store.update(Counter, "c", adding(), idempotency=inbox_record("another"))
    assert await store.get(Counter, "c") == Counter("c", 2, version=2)


async def test_of_concurrent_deliveries_of_one_event_one_has_an_effect(store: Store) -> None:
    idempotency = inbox_record("m")
    answers = await asyncio.gather(
        *(store.update(Counter, "c", adding(events=[happened()]), idempotency=idempotency) for _ in range(20)),
        return_exceptions=True,
    )

    assert [type(answer) for answer in answers].count(AlreadyDone) == 19
    assert await store.get(Counter, "c") == Counter("c", 1, version=1)
    assert len(await recorded(store)) == 1


async def test_a_mark_alone_can_be_set_without_any_entity(store: Store) -> None:
    await store.transact([], lambda _: Changes(None), idempotency=inbox_record("m"))

    with pytest.raises(AlreadyDone):
        await store.transact([], lambda _: Changes(None), idempotency=inbox_record("m"))


async def test_a_repeated_request_gets_the_first_answer(store: Store) -> None:
    idempotency = IdempotencyRecord("key", timedelta(days=1), "fingerprint", Counter)
    first = await store.update(Counter, "c", adding(), idempotency=idempotency)
    await store.update(Counter, "c", adding())

    assert await store.update(Counter, "c", adding(), idempotency=idempotency) == first == Counter("c", 1, version=1)
    assert await store.get(Counter, "c") == Counter("c", 2, version=2)


async def test_fifty_equal_requests_at_once_have_one_effect_and_one_answer(store: Store) -> None:
    idempotency = IdempotencyRecord("key", timedelta(days=1), "fingerprint", Counter)

    async def place(number: int) -> Counter:
        made = Counter(f"c{number}", number)
        return await store.transact(
            [Ref(Counter, made.id)],
            lambda _: Changes(made, put=[made], events=[happened()]),
            idempotency=idempotency,
        )

    answers = await asyncio.gather(*(place(number) for number in range(50)))

    assert {answer.id for answer in answers} == {answers[0].id}
    assert len(await store.get_many(Counter, [f"c{n}" for n in range(50)])) == 1
    assert len(await recorded(store)) == 1


async def test_a_key_used_for_another_request_is_refused(store: Store) -> None:
    await store.update(Counter, "c", adding(), idempotency=IdempotencyRecord("key", timedelta(days=1), "one", Counter))

    with pytest.raises(ServiceError) as caught:
        await store.update(
            Counter, "c", adding(), idempotency=IdempotencyRecord("key", timedelta(days=1), "two", Counter)
        )

    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_REUSED")
    assert await store.get(Counter, "c") == Counter("c", 1, version=1)


async def test_a_guard_is_forgotten_when_its_time_is_over(store: Store, clock: ManualClock) -> None:
    idempotency = IdempotencyRecord("key", timedelta(hours=24), "one", Counter)
    await store.update(Counter, "c", adding(), idempotency=idempotency)

    clock.advance(timedelta(hours=24))
    again = await store.update(Counter, "c", adding(), idempotency=idempotency)

    assert again.left == 2


async def test_sweeps_at_once_forget_what_is_over_and_nothing_else(store: Store, clock: ManualClock) -> None:
    short, long = (IdempotencyRecord(f"{hours} hours", timedelta(hours=hours), "one", Counter) for hours in (1, 24))
    for idempotency in (short, long):
        await store.update(Counter, "c", adding(), idempotency=idempotency)
    clock.advance(timedelta(hours=2))

    removed = await asyncio.gather(*(store.expire(clock.now()) for _ in range(3)))
    assert sum(removed) >= 1
    assert await store.expire(clock.now()) == 0
    assert (await store.update(Counter, "c", adding(), idempotency=long)).left == 2
    assert (await store.update(Counter, "c", adding(), idempotency=short)).left == 3
