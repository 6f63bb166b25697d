"""Listings of every store: index entries, their order, cursors, bounds."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError
from functions.runtime.store.codec import encode
from functions.runtime.store.port import PAGE_BYTES, Changes, Ref, Store
from functions.runtime.tests.store_fixtures import ADAPTERS, clock, store
from functions.runtime.tests.store_kinds import Document, put

__all__ = ["clock", "store"]


async def listed(store: Store, index: str, partition: str, limit: int = 100) -> list[str]:
    return [document.id for document in (await store.page(Document, index, partition, limit=limit)).items]


async def walk(store: Store, limit: int, *, descending: bool = False, until: str | None = None) -> list[str]:
    """All ids of the owner `me`, page by page."""
    ids: list[str] = []
    cursor = None
    while True:
        page = await store.page(Document, "owner", "me", limit=limit, cursor=cursor, descending=descending, until=until)
        assert len(page.items) <= limit
        ids += [document.id for document in page.items]
        if page.next_cursor is None:
            return ids
        assert len(page.items) == limit
        cursor = page.next_cursor


async def test_an_entity_is_found_by_each_of_its_entries(store: Store) -> None:
    await put(store, Document("d", owner="me", text="red shoe red"), Document("e", owner="you", text="red hat"))

    assert await listed(store, "word", "red") == ["d", "e"]
    assert await listed(store, "word", "shoe") == ["d"]
    assert await listed(store, "owner", "you") == ["e"]
    assert await listed(store, "owner", "red") == []
    assert await listed(store, "nothing", "red") == []


async def test_entries_move_with_the_entity(store: Store) -> None:
    await put(store, Document("d", owner="me", rank="b", text="red shoe"), Document("e", owner="me", rank="c"))
    await put(store, Document("d", owner="me", rank="d", text="blue shoe"))

    assert await listed(store, "owner", "me") == ["e", "d"]
    assert await listed(store, "word", "red") == []
    assert await listed(store, "word", "blue") == await listed(store, "word", "shoe") == ["d"]

    await put(store, Document("d", owner="you"))
    assert await listed(store, "owner", "me") == ["e"]
    assert await listed(store, "word", "shoe") == []


async def test_several_entities_change_their_entries_in_one_transaction(store: Store) -> None:
    await put(store, Document("a", owner="me"), Document("b", owner="you"), Document("c", owner="me"))

    await store.transact(
        [Ref(Document, "a"), Ref(Document, "b"), Ref(Document, "c")],
        lambda found: Changes(None, put=[Document("a", owner="you"), Document("b", owner="me")], delete=found[2:]),
    )

    assert (await listed(store, "owner", "me"), await listed(store, "owner", "you")) == (["b"], ["a"])


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
async def test_pages_in_both_directions_meet_each_entity_once(store: Store, limit: int) -> None:
    await put(store, *(Document(f"d{n}", owner="me", rank=str(n // 3)) for n in random.sample(range(14), 14)))
    expected = sorted((f"d{n}" for n in range(14)), key=lambda key: (str(int(key[1:]) // 3), key))

    assert await walk(store, limit) == expected
    assert await walk(store, limit, descending=True) == expected[::-1]


@pytest.mark.parametrize("limit", [1, 2, 10])
async def test_a_bound_is_inclusive_in_both_directions(store: Store, limit: int) -> None:
    await put(store, *(Document(f"{rank}{n}", owner="me", rank=rank) for rank in "abcd" for n in "12"))

    assert await walk(store, limit, until="b") == ["a1", "a2", "b1", "b2"]
    assert await walk(store, limit, until="bb", descending=True) == ["b2", "b1", "a2", "a1"]
    assert await walk(store, limit, until="") == []


async def test_what_comes_and_goes_between_pages_disturbs_no_other(store: Store) -> None:
    await put(store, *(Document(key, owner="me", rank=key) for key in "bdfh"))
    first = await store.page(Document, "owner", "me", limit=2)
    await put(store, Document("a", owner="me", rank="a"), Document("e", owner="me", rank="e"))
    await store.transact([Ref(Document, "d")], lambda found: Changes(None, delete=found))

    rest = await store.page(Document, "owner", "me", limit=10, cursor=first.next_cursor)

    assert [document.id for document in rest.items] == ["e", "f", "h"]


async def test_a_cursor_belongs_to_its_listing(store: Store) -> None:
    await put(store, *(Document(key, owner="me", text="me") for key in "abc"))
    cursor = (await store.page(Document, "owner", "me", limit=1)).next_cursor
    assert cursor
    assert cursor.replace("-", "").replace("_", "").isalnum()

    for index, partition, descending in (
        ("owner", "you", False),
        ("word", "me", False),
        ("owner", "me", True),
    ):
        with pytest.raises(ServiceError) as caught:
            await store.page(Document, index, partition, limit=1, cursor=cursor, descending=descending)
        assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "INVALID_CURSOR")


@pytest.mark.parametrize("garbage", ["x", "====", "ä", "AAAA", "a" * 500, "\x00", "_-_-", " "])
async def test_garbage_is_no_cursor(store: Store, garbage: str) -> None:
    with pytest.raises(ServiceError) as caught:
        await store.page(Document, "owner", "me", limit=1, cursor=garbage)

    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "INVALID_CURSOR")


async def test_a_damaged_cursor_is_refused_wherever_it_is_damaged(store: Store) -> None:
    await put(store, *(Document(key, owner="me") for key in "abc"))
    cursor = (await store.page(Document, "owner", "me", limit=1)).next_cursor
    assert cursor

    for at in range(len(cursor)):
        other = "A" if cursor[at] != "A" else "B"
        for damaged in (cursor[:at] + other + cursor[at + 1 :], cursor[:at] + "!" + cursor[at:], cursor[:at]):
            if damaged:
                with pytest.raises(ServiceError, match="cursor"):
                    await store.page(Document, "owner", "me", limit=1, cursor=damaged)


_documents = st.builds(
    Document,
    id=st.sampled_from("abcdefgh"),
    owner=st.sampled_from(["me", "you"]),
    rank=st.text("ab\x00é\U0001f600", max_size=2),
)
_steps = st.lists(st.one_of(_documents, st.sampled_from("abcdefgh")), max_size=25)


@pytest.mark.parametrize("adapter", ["memory", "sqlite"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_steps, limit=st.integers(1, 4), descending=st.booleans())
async def test_listings_agree_with_a_plain_model(
    adapter: str,
    steps: list[Document | str],
    limit: int,
    descending: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    store = ADAPTERS[adapter](tmp_path_factory.mktemp("store"), ManualClock())
    model: dict[str, Document] = {}
    for step in steps:
        if isinstance(step, Document):
            model[step.id] = step
            await put(store, step)
        else:
            model.pop(step, None)
            await store.transact(
                [Ref(Document, step)], lambda found: Changes(None, delete=[found[0]] if found[0] else [])
            )

    mine = sorted((document.rank, document.id) for document in model.values() if document.owner == "me")
    assert await walk(store, limit, descending=descending) == [key for _, key in mine][:: -1 if descending else 1]
    await store.close()


async def test_a_list_may_begin_at_a_sort_key(store: Store) -> None:
    await put(store, *(Document(f"{rank}{number}", "me", rank=rank) for rank in "abcd" for number in (1, 2)))
    page = await store.page(Document, "owner", "me", since="b", until="c", limit=3)
    assert [document.id for document in page.items] == ["b1", "b2", "c1"]
    page = await store.page(Document, "owner", "me", since="b", until="c", limit=3, cursor=page.next_cursor)
    assert ([document.id for document in page.items], page.next_cursor) == (["c2"], None)
    assert (await store.page(Document, "owner", "me", since="e", limit=3)).items == []


@pytest.mark.parametrize("descending", [False, True])
async def test_a_page_of_large_entities_is_short_and_the_next_goes_on(store: Store, descending: bool) -> None:
    await put(store, *(Document(f"d{n:02}", "me", rank="x", tags={"t": ["y" * 100_000]}) for n in range(25)))
    found: list[str] = []
    pages, cursor = 0, None
    while pages == 0 or cursor:
        page = await store.page(Document, "owner", "me", limit=100, cursor=cursor, descending=descending)
        assert 0 < len(encode(page.items)) <= PAGE_BYTES
        found += [document.id for document in page.items]
        pages, cursor = pages + 1, page.next_cursor
    assert found == sorted((f"d{n:02}" for n in range(25)), reverse=descending)
    assert pages == 3


async def test_a_page_ends_before_the_entity_that_is_too_much(store: Store) -> None:
    await put(store, *(Document(f"d{n}", "me", rank="x", tags={"t": ["z" * 340_000]}) for n in range(4)))
    sizes: list[int] = []
    cursor = None
    while not sizes or cursor:
        page = await store.page(Document, "owner", "me", limit=100, cursor=cursor)
        sizes.append(len(page.items))
        cursor = page.next_cursor
    assert sizes == [3, 1]
