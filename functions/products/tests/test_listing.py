from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.products.domain import UpdateProduct
from functions.products.search.keys import keys, searchable, terms
from functions.products.search.listing import ListProducts, ProductListing
from functions.products.store import MAPPINGS
from functions.products.tests.shop import ADMIN, CUSTOMER, Shop, flat
from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import ANONYMOUS, Identity
from functions.runtime.store.memory import MemoryStore


async def test_products_come_newest_first(shop: Shop) -> None:
    for name in ("first", "second", "third"):
        await shop.add(name=name)

    assert await shop.names() == ["third", "second", "first"]


async def test_pages_are_full_and_together_complete(shop: Shop) -> None:
    ids = [(await shop.add()).id for _ in range(7)]

    pages = await shop.walk(limit=3)

    assert [len(page) for page in pages] == [3, 3, 1]
    assert flat(pages) == ids[::-1]


async def test_the_last_full_page_has_no_cursor(shop: Shop) -> None:
    for _ in range(4):
        await shop.add(name="Steel kettle")

    assert [len(page) for page in await shop.walk(limit=2)] == [2, 2]
    assert [len(page) for page in await shop.walk(limit=2, text="kettle steel")] == [2, 2]


@pytest.mark.parametrize("text", ["", "kettle"])
async def test_what_was_there_all_along_is_listed_once_whatever_is_written_meanwhile(shop: Shop, text: str) -> None:
    products = [await shop.add(name=f"Kettle {n}") for n in range(9)]
    seen, cursor = [], ""
    for n in range(9):
        page = await shop.products.list_products(ListProducts(text=text, limit=1, cursor=cursor), ANONYMOUS)
        seen += [product.id for product in page.items]
        cursor = page.next_cursor or ""
        await shop.add(name=f"New kettle {n}")
        if n == 3:
            # The one just shown goes, one not yet shown changes, one not yet shown goes.
            await shop.products.delete(products[5].id, ADMIN)
            await shop.products.update(UpdateProduct(products[4].id, name="A kettle"), ADMIN)
            await shop.products.delete(products[3].id, ADMIN)
        if not cursor:
            break

    expected = [product.id for n, product in enumerate(products) if n != 3]
    assert seen == expected[::-1]


async def test_a_category_lists_its_own(shop: Shop) -> None:
    await shop.add(name="Kettle", category="kitchen")
    rake = await shop.add(name="Rake", category="garden")
    await shop.add(name="Rake, old", category="garden", active=False)
    assert await shop.names(category="garden") == ["Rake"]

    await shop.products.update(UpdateProduct(rake.id, category="kitchen"), ADMIN)

    assert await shop.names(category="garden") == []
    assert await shop.names(category="kitchen") == ["Rake", "Kettle"]


async def test_inactive_products_are_listed_for_admins_who_ask(shop: Shop) -> None:
    await shop.add(name="On sale")
    await shop.add(name="Not on sale", active=False)

    for text in ("", "sale", "sa"):
        assert await shop.names(text) == ["On sale"]
        everything = await shop.walk(ADMIN, text=text, include_inactive=True)
        assert [product.name for product in everything[0]] == ["Not on sale", "On sale"]


@pytest.mark.parametrize(("caller", "code"), [(CUSTOMER, Code.PERMISSION_DENIED), (ANONYMOUS, Code.UNAUTHENTICATED)])
async def test_inactive_products_are_not_for_others(shop: Shop, caller: Identity, code: Code) -> None:
    with pytest.raises(ServiceError) as raised:
        await shop.walk(caller, include_inactive=True)

    assert raised.value.code is code


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("kettle", ["Kettle, small", "Electric kettle"]),
        ("KETT", ["Kettle, small", "Electric kettle"]),
        ("k", ["Kettle, small", "Electric kettle"]),
        ("kettle electric", ["Electric kettle"]),
        ("el kettle", ["Electric kettle"]),
        ("creme brulee", ["Crème brûlée bowls"]),
        ("Crème", ["Crème brûlée bowls"]),
        ("stainless", ["Electric kettle"]),  # in the description
        ("ket-001", ["Electric kettle"]),  # the SKU
        ("ket001", ["Electric kettle"]),
        ("5l", ["Electric kettle"]),
        ("kettle bowls", []),
        ("ettle", []),
        ("%", []),
        ("  ", ["Crème brûlée bowls", "Kettle, small", "Electric kettle"]),
    ],
)
async def test_a_search_finds_all_words_by_their_beginnings(shop: Shop, text: str, found: list[str]) -> None:
    await shop.add(name="Electric kettle", sku="KET-001", description="Stainless, holds 1.5l")
    await shop.add(name="Kettle, small")
    await shop.add(name="Crème brûlée bowls")

    assert await shop.names(text) == found


async def test_a_search_can_be_within_a_category(shop: Shop) -> None:
    await shop.add(name="Steel kettle", category="kitchen")
    await shop.add(name="Steel rake", category="garden")

    for text in ("steel", "st"):
        assert await shop.names(text, category="garden") == ["Steel rake"]
        assert await shop.names(text, category="attic") == []


async def test_a_search_follows_the_text_of_a_product(shop: Shop) -> None:
    product = await shop.add(name="Kettle")

    await shop.products.update(UpdateProduct(product.id, name="Pot"), ADMIN)

    assert await shop.names("kettle") == []
    assert await shop.names("pot") == ["Pot"]


# Long enough for its words to lie under fewer letters: one of two, others of one.
LONG = " ".join(f"{first}{second}x" for first in "klmnop" for second in "aeiouyrs")
# Just too long: kettle lies under its first three letters, and other words under its first one.
FULL = " ".join(f"{first}{second}x" for first in "klmnopqrtuvwx" for second in "abc")
TEXTS = ["steel kettle", "steel ketchup", f"{LONG} steel kettle", LONG, f"{FULL} kettle steel", "kettle"]


def test_a_text_may_lie_where_a_search_looks_twice() -> None:
    assert {"k", "ket"} <= keys(searchable(TEXTS[4])) & set(terms(["kettle"], earlier=False)[0])


@given(st.lists(st.sampled_from(TEXTS), max_size=40), st.integers(1, 5))
def test_a_search_pages_through_all_hits_once_among_texts_of_any_length(texts: list[str], limit: int) -> None:
    async def search() -> None:
        clock = ManualClock()
        shop = Shop(MemoryStore(MAPPINGS, clock), clock)
        ids = [(await shop.add(sku=f"{n}", name="-", description=text)).id for n, text in enumerate(texts)]

        pages = await shop.walk(text="steel kettle", limit=limit)

        hits = [n for n, text in zip(ids, texts, strict=True) if {"steel", "kettle"} <= set(text.split())]
        assert flat(pages) == hits[::-1]
        assert all(len(page) == limit for page in pages[:-1])

    asyncio.run(search())


async def test_what_is_rare_is_found_at_once_among_many_that_begin_alike(shop: Shop) -> None:
    needle = await shop.add(name="Kettledrum")
    for _ in range(25):
        await shop.add(name="Kettle")

    page = await ProductListing(shop.store, max_reads=1).page(ListProducts(text="kettledrum", limit=2))

    assert ([product.id for product in page.items], page.next_cursor) == ([needle.id], None)


async def test_what_rarely_meets_is_found_at_once_among_many_with_one_of_the_words(shop: Shop) -> None:
    needle = await shop.add(name="Kettle drum")
    for _ in range(25):
        await shop.add(name="Kettle")
        await shop.add(name="Drum")

    page = await ProductListing(shop.store, max_reads=1).page(ListProducts(text="kett drum", limit=2))

    assert ([product.id for product in page.items], page.next_cursor) == ([needle.id], None)


async def test_a_long_and_barren_search_stops_and_goes_on_from_there(shop: Shop) -> None:
    needle = await shop.add(name="Kettle drum")
    for _ in range(25):
        await shop.add(name="Kettle drum", active=False)

    found: list[list[str]] = []
    cursors: list[str | None] = [""]
    while cursors[-1] is not None:
        query = ListProducts(text="kettle drum", limit=2, cursor=cursors[-1])
        page = await ProductListing(shop.store, max_reads=2).page(query)
        found.append([product.id for product in page.items])
        cursors.append(page.next_cursor)

    assert found == [[], [], [needle.id]]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (ListProducts(limit=101), "limit"),
        (ListProducts(limit=-1), "limit"),
        (ListProducts(text="x" * 201), "q"),
        (ListProducts(category="No slug"), "category"),
        (ListProducts(cursor="made up"), "cursor"),
    ],
)
async def test_a_query_has_bounds(shop: Shop, query: ListProducts, field: str) -> None:
    with pytest.raises(ServiceError) as raised:
        await shop.products.list_products(query, ANONYMOUS)

    assert [violation.field for violation in raised.value.violations] == [field]


async def test_a_cursor_belongs_to_its_list(shop: Shop) -> None:
    for _ in range(3):
        await shop.add(name="Kettle")
    page = await shop.products.list_products(ListProducts(limit=1), ANONYMOUS)
    assert page.next_cursor

    for query in (
        ListProducts(text="kettle", cursor=page.next_cursor),
        ListProducts("kitchen", cursor=page.next_cursor),
    ):
        with pytest.raises(ServiceError) as raised:
            await shop.products.list_products(query, ANONYMOUS)
        assert raised.value.reason == "INVALID_CURSOR"
