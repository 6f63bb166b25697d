"""What every store does, whatever it is made of: entities, versions, transactions of several entities."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from events.catalog import Money
from functions.runtime.clock import ManualClock
from functions.runtime.errors import ServiceError, failed_precondition
from functions.runtime.paging import Listing, cursor_after
from functions.runtime.store.port import Changes, Ref, Store
from functions.runtime.tests.store_fixtures import clock, store
from functions.runtime.tests.store_kinds import Counter, Document, adding, filled, happened, inbox_record, put
from functions.runtime.tests.support import recorded

__all__ = ["clock", "store"]

FOREVER = datetime.max.replace(tzinfo=UTC)


def taking(counter: Counter | None) -> tuple[Counter, tuple[()]]:
    assert counter
    counter.take()
    return counter, ()


async def test_what_was_never_stored_is_absent(store: Store) -> None:
    assert await store.get(Counter, "c") is None
    assert await store.get_many(Counter, ["c", "d"]) == {}


async def test_ids_of_any_length_may_be_asked_for(store: Store) -> None:
    endless = "é" * 5000
    assert await store.get(Counter, endless) is None
    assert await store.get_many(Counter, [endless, "c"]) == {}
    assert (await store.page(Document, "owner", endless, limit=5)).items == []
    cursor = cursor_after(Listing("document", "owner", "me", descending=False), endless, "d")
    assert (await store.page(Document, "owner", "me", limit=5, cursor=cursor)).items == []


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
        await store.update(Counter, "c", refuse, idempotency=inbox_record("m"))

    assert await store.get(Counter, "c") == Counter("c", 1, version=1)
    assert await recorded(store) == []
    await store.update(Counter, "c", adding(1), idempotency=inbox_record("m"))  # the mark was not left behind


async def test_every_concurrent_change_counts(store: Store) -> None:
    await asyncio.gather(*(store.update(Counter, "c", adding()) for _ in range(100)))

    assert await store.get(Counter, "c") == Counter("c", 100, version=100)


async def test_two_hundred_at_once_take_no_more_than_there_is(store: Store) -> None:
    await store.update(Counter, "c", lambda _: (filled(50), ()))

    answers = await asyncio.gather(*(store.update(Counter, "c", taking) for _ in range(200)), return_exceptions=True)

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

    await asyncio.gather(*(move(str(n % 5), str((n * 3 + 1) % 5)) for n in range(150) if n % 5 != (n * 3 + 1) % 5))

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
    await put(store, Document("d", text="words"))

    await store.transact([Ref(Document, "d")], lambda found: Changes(None, delete=found))
    assert await store.get(Document, "d") is None
    assert (await store.page(Document, "words", "words", limit=10)).items == []

    await put(store, Document("d", text="words"))
    assert await store.get(Document, "d") == Document("d", text="words", version=1)


async def test_what_has_expired_is_absent_though_nobody_removed_it(store: Store, clock: ManualClock) -> None:
    ends = clock.now() + timedelta(hours=1)
    await put(store, *(Document(key, owner="me", rank=key, ends=ends) for key in "abc"), Document("d", "me"))
    clock.advance(timedelta(hours=1) - timedelta(microseconds=1))
    assert list(await store.get_many(Document, list("abcd"))) == list("abcd")
    clock.advance(timedelta(microseconds=1))

    assert await store.get(Document, "a") is None
    assert list(await store.get_many(Document, list("abcd"))) == ["d"]
    for descending in (False, True):
        page = await store.page(Document, "owner", "me", limit=1, descending=descending)
        assert ([document.id for document in page.items], page.next_cursor) == (["d"], None)


async def test_what_is_made_anew_under_an_expired_id_starts_afresh(store: Store, clock: ManualClock) -> None:
    ends = clock.now() + timedelta(hours=1)
    await put(store, *(Document(key, owner="me", text="old words", ends=ends) for key in "abc"))
    await put(store, Document("a", owner="me", text="old words", ends=ends))
    clock.advance(timedelta(hours=1))

    await put(store, Document("a", owner="you", text="new words"))

    assert await store.get(Document, "a") == Document("a", owner="you", text="new words", version=1)
    assert (await store.page(Document, "words", "old", limit=9)).items == []
    assert [found.id for found in (await store.page(Document, "words", "words", limit=9)).items] == ["a"]
    assert await store.expire(clock.now()) == 2
    assert await store.expire(clock.now()) == 0
    assert await store.get(Document, "a") is not None


async def test_a_change_gets_nothing_for_what_has_expired(store: Store, clock: ManualClock) -> None:
    await put(store, Document("a", ends=clock.now() + timedelta(hours=1)), Document("b"))
    clock.advance(timedelta(hours=1))

    def delete_both(found: Sequence[Any]) -> Changes[list[bool]]:
        return Changes([each is None for each in found], delete=[each for each in found if each])

    refs = [Ref(Document, "a"), Ref(Document, "b")]
    assert await store.transact(refs, delete_both) == [True, False]
    assert await store.get_many(Document, ["a", "b"]) == {}


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
