"""Listings of every store: index entries, their order, cursors, bounds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError
from functions.runtime.store.codec import encode
from functions.runtime.store.port import PAGE_BYTES, Changes, Ref, Store, Term
from functions.runtime.store.search import COUNTED, FEW
from functions.runtime.tests.store_fixtures import ADAPTERS, clock, store, without_moto
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

    assert await listed(store, "words", "red") == ["d", "e"]
    assert await listed(store, "words", "shoe") == ["d"]
    assert await listed(store, "owner", "you") == ["e"]
    assert await listed(store, "owner", "red") == []
    assert await listed(store, "nothing", "red") == []


async def test_entries_move_with_the_entity(store: Store) -> None:
    await put(store, Document("d", owner="me", rank="b", text="red shoe"), Document("e", owner="me", rank="c"))
    await put(store, Document("d", owner="me", rank="d", text="blue shoe"))

    assert await listed(store, "owner", "me") == ["e", "d"]
    assert await listed(store, "words", "red") == []
    assert await listed(store, "words", "blue") == await listed(store, "words", "shoe") == ["d"]

    await put(store, Document("d", owner="you"))
    assert await listed(store, "owner", "me") == ["e"]
    assert await listed(store, "words", "shoe") == []


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
        ("words", "me", False),
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


async def search(store: Store, *terms: str, limit: int = 100, below: str | None = None) -> tuple[list[str], str | None]:
    """The ids found by words, and by owners after `@`. The alternatives of a term have bars between them."""
    wanted = [Term("owner" if term[0] == "@" else "words", term.removeprefix("@").split("|")) for term in terms]
    found = await store.search(Document, wanted, limit=limit, below=below)
    return [document.id for document in found.items], found.below


async def test_a_search_finds_what_meets_every_term_greatest_sort_key_first(store: Store) -> None:
    await put(store, *(Document(key, "me", key, text) for key, text in {
        "a": "red shoe", "b": "blue shoe", "c": "red hat", "d": "red blue shoe", "e": "red shoe", "f": "shoe",
    }.items()))  # fmt: skip
    await put(store, Document("e", "you", "e", "red shoe"))

    assert await search(store, "red", "shoe") == (["e", "d", "a"], None)
    assert await search(store, "shoe", "red") == (["e", "d", "a"], None)
    assert await search(store, "red|blue") == (["e", "d", "c", "b", "a"], None)
    assert await search(store, "red|blue|green", "shoe", "@me") == (["d", "b", "a"], None)
    assert await search(store, "hat|red", "shoe|hat", "@me|you", "red") == (["e", "d", "c", "a"], None)
    assert await search(store, "red", "shoe", below="d") == (["a"], None)
    assert await search(store, "hat", "blue") == await search(store, "red", "green") == ([], None)
    assert await search(store, "nothing") == ([], None)


async def test_a_search_may_ask_for_parts_of_the_data(store: Store) -> None:
    await put(store, *(Document(f"d{n}", "me", f"{n}", f"red sho{'e' if n % 2 else 'p ü'} {n}") for n in range(6)))

    async def containing(*parts: str, limit: int = 10) -> tuple[list[str], str | None]:
        found = await store.search(Document, [Term("owner", ["me", "you"])], limit=limit, containing=parts)
        return [document.id for document in found.items], found.below

    assert await containing("shoe", "red") == (["d5", "d3", "d1"], None)
    assert await containing("shop ü") == (["d4", "d2", "d0"], None)
    assert await containing("blue") == await containing("shoe", "shop") == ([], None)
    assert (await containing("shoe", limit=2))[0][:1] == ["d5"]


async def test_a_search_follows_changes_deletions_and_ends(store: Store, clock: ManualClock) -> None:
    ends = clock.now() + timedelta(seconds=10)
    await put(store, *(Document(key, "me", key, "red shoe", ends=ends if key == "c" else None) for key in "abcd"))
    await put(store, Document("a", "me", "a", "blue shoe"))
    await store.transact([Ref(Document, "b")], lambda found: Changes(None, delete=found))

    assert await search(store, "red", "shoe") == (["d", "c"], None)
    clock.advance(timedelta(seconds=10))
    assert await search(store, "red", "shoe") == await search(store, "red", "@me") == (["d"], None)


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
async def test_the_parts_of_a_search_are_together_complete_whatever_is_written_meanwhile(
    store: Store, limit: int
) -> None:
    def document(n: int) -> Document:
        words = ["all", *(name for name, every in (("two", 2), ("three", 3), ("five", 5)) if n % every == 0)]
        return Document(f"d{n:03}", "me", f"{n:03}", " ".join(words))

    await put(store, *(document(n) for n in range(60)))
    found: list[str] = []
    below, parts = None, 0
    while below is not None or not parts:
        ids, below = await search(store, "two|five", "all", "three", limit=limit, below=below)
        assert len(ids) <= limit
        found, parts = found + ids, parts + 1
        await put(store, document(990 - len(found) * 30))

    assert found == [f"d{n:03}" for n in range(59, -1, -1) if n % 3 == 0 and (n % 2 == 0 or n % 5 == 0)]


@without_moto
async def test_a_barren_search_ends_by_itself(store: Store) -> None:
    """Two words that are in many entities each, and in one together."""
    await put(store, Document("x", "me", "0", "even odd"))
    for start in range(0, 2 * COUNTED + 200, 30):
        many = [
            Document(f"d{n}", "me", f"1{n:04}", "even" if n < COUNTED + 100 else "odd")
            for n in range(start, start + 30)
        ]
        await store.transact([Ref(Document, it.id) for it in many], lambda _, many=many: Changes(None, many))  # type: ignore[misc]
    found: list[str] = []
    below, parts = None, 0
    while below is not None or not parts:
        ids, below = await search(store, "even", "odd", below=below)
        found, parts = found + ids, parts + 1

    assert found == ["x"]
    assert parts < 40


@without_moto
@pytest.mark.parametrize("limit", [3, 100])
async def test_a_search_for_several_words_agrees_with_a_plain_model(store: Store, limit: int) -> None:
    """Words of every frequency, written, rewritten and deleted at random. Some searches have more than `FEW` hits."""
    chance = random.Random(limit)
    owners = ["me", "back\\slash", "back\\u0000", "nul\x00", "one\x01"]
    words = ["all", "most", "half", "some", "rare"]

    def document(n: int) -> Document:
        text = [word for number, word in enumerate(words) if chance.random() < 2**-number or n % 50 == 0]
        return Document(f"d{n:03}", chance.choice(owners), f"{n:03}", " ".join(text))

    model: dict[str, Document] = {}
    for start in range(0, FEW + 60, 10):
        numbers = {*range(start, start + 10), chance.randrange(start + 1), chance.randrange(start + 1)}
        many = {it.id: it for it in map(document, sorted(numbers))}
        model.update(many)
        await store.transact([Ref(Document, key) for key in many], _replacing(many))
        gone = document(chance.randrange(start + 10)).id
        await store.transact([Ref(Document, gone)], lambda found: Changes(None, delete=[it for it in found if it]))
        model.pop(gone, None)

    for terms in (["all", "most"], ["half", "all"], ["rare", "some", "all"], ["rare|some", "most"], ["gone", "all"]):
        for owner in (None, "me|you", *owners):
            wanted = [*terms, *([f"@{owner}"] if owner else [])]
            found: list[str] = []
            below, parts = None, 0
            while below is not None or not parts:
                ids, below = await search(store, *wanted, limit=limit, below=below)
                found, parts = found + ids, parts + 1
            assert found == sorted((key for key, it in model.items() if _meets(it, terms, owner)), reverse=True)


def _replacing(documents: dict[str, Document]) -> Callable[[Sequence[Any]], Changes[None]]:
    return lambda found: Changes(
        None,
        [replace(documents[key], version=old.version if old else 0) for key, old in zip(documents, found, strict=True)],
    )


def _meets(document: Document, terms: Sequence[str], owner: str | None) -> bool:
    words = set(document.text.split())
    return all(words & set(term.split("|")) for term in terms) and (not owner or document.owner in owner.split("|"))


async def test_a_part_of_large_entities_is_short_and_the_next_goes_on(store: Store) -> None:
    await put(store, *(Document(f"d{n}", "me", str(n), "red", tags={"t": ["z" * 340_000]}) for n in range(4)))

    assert await search(store, "red", "@me") == (["d3", "d2", "d1"], "1")
    assert await search(store, "red", "@me", below="1") == (["d0"], None)


_documents = st.builds(
    Document,
    id=st.sampled_from("abcdefgh"),
    owner=st.sampled_from(["me", "you"]),
    rank=st.text("ab\x00é\U0001f600", max_size=2),
)
_steps = st.lists(st.one_of(_documents, st.sampled_from("abcdefgh")), max_size=25)


@pytest.mark.parametrize("adapter", ["memory", "sqlite"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
