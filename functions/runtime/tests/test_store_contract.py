"""What every store does, whatever it is made of: entities, versions, transactions, guards, outbox, expiry."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from events.catalog import Money
from events.outbox import OutboxRow
from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError, failed_precondition
from functions.runtime.store.port import AlreadyDone, Changes, Once, Ref, Store
from functions.runtime.store.testing import recorded
from functions.runtime.tests.store_fixtures import clock, store
from functions.runtime.tests.store_kinds import Counter, Document, adding, filled, happened, mark, put
from observability import context

__all__ = ["clock", "store"]

FOREVER = datetime.max.replace(tzinfo=UTC)


def taking(counter: Counter | None) -> tuple[Counter, tuple[()]]:
    assert counter
    counter.take()
    return counter, ()


async def test_what_was_never_stored_is_absent(store: Store) -> None:
    assert await store.get(Counter, "c") is None
    assert await store.get_many(Counter, ["c", "d"]) == {}


async def test_an_entity_comes_back_as_it_was_written(store: Store) -> None:
    written = Document(
        "d",
        owner="Ægir\x00",
        text="naïve 文",
        price=Money(amount=2**53, currency="EUR"),
        tags={"a": ["b", ""]},
        written=datetime(2031, 2, 3, 4, 5, 6, 789, UTC),
    )
    await put(store, written)

    assert await store.get(Document, "d") == replace(written, version=1)


async def test_the_version_counts_the_writes(store: Store) -> None:
    versions = [(await store.update(Counter, "c", adding())).version for _ in range(3)]

    assert versions == [1, 2, 3]
    assert await store.get(Counter, "c") == Counter("c", 3, version=3)


async def test_entities_of_different_classes_may_share_an_id(store: Store) -> None:
    await store.update(Counter, "same", lambda _: (Counter("same", 7), ()))
    await put(store, Document("same", owner="me"))

    assert await store.get(Counter, "same") == Counter("same", 7, version=1)
    assert await store.get_many(Document, ["same"]) == {"same": Document("same", owner="me", version=1)}


async def test_what_a_caller_gets_is_its_own_copy(store: Store) -> None:
    given = Document("d", tags={"a": ["b"]})
    committed = await store.update(Document, "d", lambda _: (given, ()))
    for copy in (given, committed, await store.get(Document, "d")):
        assert copy
        copy.tags["a"].append("spoilt")
        copy.owner = "spoilt"

    assert await store.get(Document, "d") == Document("d", tags={"a": ["b"]}, version=1)


async def test_a_change_that_raises_writes_nothing(store: Store) -> None:
    await store.update(Counter, "c", adding(1))

    def refuse(counter: Counter | None) -> tuple[Counter, Sequence[Any]]:
        assert counter
        counter.left = 99
        raise failed_precondition("NO", "No.")

    with pytest.raises(ServiceError, match="No"):
        await store.update(Counter, "c", refuse, once=mark("m"))

    assert await store.get(Counter, "c") == Counter("c", 1, version=1)
    assert await recorded(store) == []
    await store.update(Counter, "c", adding(1), once=mark("m"))  # the mark was not left behind


async def test_every_concurrent_change_counts(store: Store) -> None:
    await asyncio.gather(*(store.update(Counter, "c", adding()) for _ in range(100)))

    assert await store.get(Counter, "c") == Counter("c", 100, version=100)


async def test_two_hundred_at_once_take_no_more_than_there_is(store: Store) -> None:
    await store.update(Counter, "c", lambda _: (filled(50), ()))

    answers = await asyncio.gather(
        *(store.update(Counter, "c", taking) for _ in range(200)), return_exceptions=True
    )

    refused = [answer for answer in answers if isinstance(answer, ServiceError)]
    assert {error.reason for error in refused} == {"OUT_OF_STOCK"}
    assert (len(answers) - len(refused), len(refused)) == (50, 150)
    assert await store.get(Counter, "c") == Counter("c", 0, version=51)


async def test_a_change_of_several_entities_is_all_or_nothing(store: Store) -> None:
    await store.update(Counter, "a", lambda _: (Counter("a", 100), ()))
    await store.update(Counter, "b", lambda _: (Counter("b", 1), ()))

    async def take_both() -> int:
        def change(found: Sequence[Any]) -> Changes[int]:
            for counter in found:
                counter.take()
            return Changes(found[0].left, put=found, events=[happened()])

        return await store.transact([Ref(Counter, "a"), Ref(Counter, "b")], change)

    answers = await asyncio.gather(*(take_both() for _ in range(20)), return_exceptions=True)

    assert [answer for answer in answers if not isinstance(answer, ServiceError)] == [99]
    left = await store.get_many(Counter, ["a", "b", "c"])
    assert {key: counter.left for key, counter in left.items()} == {"a": 99, "b": 0}
    assert len(await recorded(store)) == 1


async def test_money_moved_between_many_in_parallel_is_never_lost(store: Store) -> None:
    for number in range(5):
        await store.update(Counter, str(number), adding(100, key=str(number)))

    async def move(source: str, target: str) -> None:
        def change(found: Sequence[Any]) -> Changes[None]:
            found[0].take()
            found[1].left += 1
            return Changes(None, put=found)

        await store.transact([Ref(Counter, source), Ref(Counter, target)], change)

    await asyncio.gather(
        *(move(str(n % 5), str((n * 3 + 1) % 5)) for n in range(150) if n % 5 != (n * 3 + 1) % 5)
    )

    assert sum(c.left for c in (await store.get_many(Counter, list("01234"))).values()) == 500


async def test_a_change_sees_its_entities_in_order_and_none_where_absent(store: Store) -> None:
    await store.update(Counter, "b", lambda _: (Counter("b", 2), ()))
    seen: list[Any] = []

    def look(found: Sequence[Any]) -> Changes[str]:
        seen[:] = found
        return Changes("looked")

    refs = [Ref(Counter, "a"), Ref(Counter, "b"), Ref(Document, "b")]
    assert await store.transact(refs, look) == "looked"
    assert seen == [None, Counter("b", 2, version=1), None]


async def test_a_ref_named_twice_is_one_entity(store: Store) -> None:
    await store.update(Counter, "c", lambda _: (filled(5), ()))

    def change(found: Sequence[Any]) -> Changes[None]:
        for counter in found:
            counter.take()
        return Changes(None, put=found[:1])

    await store.transact([Ref(Counter, "c"), Ref(Counter, "c")], change)

    assert await store.get(Counter, "c") == Counter("c", 3, version=2)


async def test_a_deleted_entity_is_gone_and_may_be_made_anew(store: Store) -> None:
    await put(store, Document("d", text="word"))

    await store.transact([Ref(Document, "d")], lambda found: Changes(None, delete=found))
    assert await store.get(Document, "d") is None
    assert (await store.page(Document, "word", "word", limit=10)).items == []

    await put(store, Document("d", text="word"))
    assert await store.get(Document, "d") == Document("d", text="word", version=1)


async def test_deleting_what_is_absent_does_nothing(store: Store) -> None:
    await store.transact([Ref(Counter, "c")], lambda _: Changes(None, delete=[filled(1)]))

    assert await store.get(Counter, "c") is None


@pytest.mark.parametrize(
    "changes",
    [
        Changes(None, put=[Counter("other")]),
        Changes(None, delete=[Counter("other")]),
        Changes(None, put=[Document("c")]),
        Changes(None, put=[Counter("c"), Counter("c")]),
        Changes(None, put=[Counter("c")], delete=[Counter("c")]),
    ],
)
async def test_only_what_was_asked_for_may_be_written_and_once(store: Store, changes: Changes[None]) -> None:
    with pytest.raises(ValueError, match="transaction"):
        await store.transact([Ref(Counter, "c")], lambda _: changes)

    assert await store.get(Counter, "c") is None
    assert await store.get(Counter, "other") is None


async def test_a_class_that_the_store_does_not_keep_is_refused(store: Store) -> None:
    @dataclass
    class Stranger:
        id: str
        version: int = 0

    with pytest.raises(ValueError, match="Stranger"):
        await store.get(Stranger, "s")


async def test_an_inbox_mark_lets_an_effect_happen_once(store: Store) -> None:
    await store.update(Counter, "c", adding(), once=mark("m"))

    with pytest.raises(AlreadyDone):
        await store.update(Counter, "c", adding(), once=mark("m"))

    await store.update(Counter, "c", adding(), once=mark("another"))
    assert await store.get(Counter, "c") == Counter("c", 2, version=2)


async def test_of_concurrent_deliveries_of_one_event_one_has_an_effect(store: Store) -> None:
    once = mark("m")
    answers = await asyncio.gather(
        *(store.update(Counter, "c", adding(events=[happened()]), once=once) for _ in range(20)),
        return_exceptions=True,
    )

    assert [type(answer) for answer in answers].count(AlreadyDone) == 19
    assert await store.get(Counter, "c") == Counter("c", 1, version=1)
    assert len(await recorded(store)) == 1


async def test_a_mark_alone_can_be_set_without_any_entity(store: Store) -> None:
    await store.transact([], lambda _: Changes(None), once=mark("m"))

    with pytest.raises(AlreadyDone):
        await store.transact([], lambda _: Changes(None), once=mark("m"))


async def test_a_repeated_request_gets_the_first_answer(store: Store) -> None:
    once = Once("key", timedelta(days=1), "fingerprint", Counter)
    first = await store.update(Counter, "c", adding(), once=once)
    await store.update(Counter, "c", adding())

    assert await store.update(Counter, "c", adding(), once=once) == first == Counter("c", 1, version=1)
    assert await store.get(Counter, "c") == Counter("c", 2, version=2)


async def test_fifty_equal_requests_at_once_have_one_effect_and_one_answer(store: Store) -> None:
    once = Once("key", timedelta(days=1), "fingerprint", Counter)

    async def place(number: int) -> Counter:
        made = Counter(f"c{number}", number)
        return await store.transact(
            [Ref(Counter, made.id)], lambda _: Changes(made, put=[made], events=[happened()]), once=once
        )

    answers = await asyncio.gather(*(place(number) for number in range(50)))

    assert {answer.id for answer in answers} == {answers[0].id}
    assert len(await store.get_many(Counter, [f"c{n}" for n in range(50)])) == 1
    assert len(await recorded(store)) == 1


async def test_a_key_used_for_another_request_is_refused(store: Store) -> None:
    await store.update(Counter, "c", adding(), once=Once("key", timedelta(days=1), "one", Counter))

    with pytest.raises(ServiceError) as caught:
        await store.update(Counter, "c", adding(), once=Once("key", timedelta(days=1), "two", Counter))

    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_REUSED")
    assert await store.get(Counter, "c") == Counter("c", 1, version=1)


async def test_a_guard_is_forgotten_when_its_time_is_over(store: Store, clock: ManualClock) -> None:
    once = Once("key", timedelta(hours=24), "one", Counter)
    await store.update(Counter, "c", adding(), once=once)

    clock.advance(timedelta(hours=24))
    again = await store.update(Counter, "c", adding(), once=once)

    assert again.left == 2


async def test_events_wait_in_the_outbox_as_cloudevents_of_their_work(
    store: Store, clock: ManualClock
) -> None:
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

    await store.update(Counter, "c", adding(events=[happened(1), happened(2)]), once=mark("m"))
    with pytest.raises(AlreadyDone):
        await store.update(Counter, "c", adding(events=[happened(3)]), once=mark("m"))
    with pytest.raises(ServiceError):
        await store.update(Counter, "c", refuse)

    assert heard == await store.outbox(FOREVER, 10)
    assert len(heard) == 2


async def test_what_has_expired_is_removed_and_nothing_else(store: Store, clock: ManualClock) -> None:
    for number in range(6):
        ends = clock.now() + timedelta(hours=number) if number else None
        await put(store, Document(f"d{number}", text="word", ends=ends))
    await store.update(Counter, "c", adding(), once=Once("short", timedelta(hours=1), "f", Counter))
    await store.update(Counter, "c", adding(), once=mark("long"))

    assert await store.expire(clock.now() + timedelta(hours=2, microseconds=-1)) == 2
    assert await store.expire(clock.now() + timedelta(hours=2)) == 1

    left = [document.id for document in (await store.page(Document, "word", "word", limit=10)).items]
    assert left == ["d0", "d3", "d4", "d5"]
    assert list(await store.get_many(Document, [f"d{n}" for n in range(6)])) == left


async def test_an_entity_whose_end_is_put_off_stays(store: Store, clock: ManualClock) -> None:
    await put(store, Document("a", ends=clock.now()), Document("b", ends=clock.now()))
    await put(store, Document("a", ends=clock.now() + timedelta(hours=1)), Document("b", ends=None))

    assert await store.expire(clock.now()) == 0


async def test_expiry_removes_no_more_than_asked_at_once(store: Store, clock: ManualClock) -> None:
    for number in range(7):
        await put(store, Document(str(number), ends=clock.now()))
        await store.transact([], lambda _: Changes(None), once=Once(f"k{number}", timedelta(0)))

    assert [await store.expire(clock.now(), 5) for _ in range(4)] == [5, 5, 4, 0]


async def test_a_closed_store_is_unavailable(store: Store) -> None:
    await store.ping()
    await store.close()

    for use in (store.ping(), store.get(Counter, "c"), store.update(Counter, "c", adding())):
        with pytest.raises(ServiceError) as caught:
            await use
        assert caught.value.code is Code.UNAVAILABLE
