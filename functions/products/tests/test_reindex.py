"""The sweep folds texts of an earlier release again."""

from __future__ import annotations

from dataclasses import replace

from functions.products.domain import ProductText, SearchIndex
from functions.products.search.folding import VERSION
from functions.products.search.reindex import reindex
from functions.products.tests.shop import ADMIN, Shop


async def make_old(shop: Shop, product_id: str, text: str) -> None:
    """Store the text of a product as a release without versions of folding wrote it."""
    old = await shop.store.get(ProductText, product_id)
    assert old is not None
    await shop.store.update(ProductText, product_id, lambda _: (replace(old, text=text, folding=0), ()))


async def state(shop: Shop) -> SearchIndex:
    found = await shop.store.get(SearchIndex, "products")
    assert found is not None
    return found


async def test_a_text_of_an_earlier_release_is_found_by_the_new_rules_after_a_sweep(shop: Shop) -> None:
    product = await shop.add(name="Łódź poster")
    await make_old(shop, product.id, " łodz poster")
    assert await shop.names("lodz") == []

    await shop.sweep()

    assert await shop.names("lodz") == ["Łódź poster"]
    assert await shop.names("poster") == ["Łódź poster"]
    assert (await state(shop)).folding == VERSION
    assert await reindex(shop.store) == 0


async def test_a_rebuild_goes_on_where_it_was_cut_short(shop: Shop) -> None:
    products = [await shop.add(name=f"Łódź {n}") for n in range(5)]
    for n, product in enumerate(products):
        await make_old(shop, product.id, f" łodz {n}")

    rebuilt = [await reindex(shop.store, 2, 1) for _ in range(6)]

    assert rebuilt == [2, 2, 1, 0, 0, 0]
    assert (await state(shop)).folding == VERSION
    assert len(await shop.names("lodz")) == 5


async def test_what_is_written_by_the_earlier_release_meanwhile_is_found_by_another_pass(
    shop: Shop,
) -> None:
    products = [await shop.add(name=f"Łódź {n}") for n in range(3)]
    for n, product in enumerate(products):
        await make_old(shop, product.id, f" łodz {n}")
    await reindex(shop.store, 2, 1)
    await make_old(shop, products[2].id, " łodz 2")

    while (await state(shop)).folding != VERSION:
        await reindex(shop.store, 2, 1)

    assert len(await shop.names("lodz")) == 3


async def test_a_deleted_product_needs_no_text(shop: Shop) -> None:
    product = await shop.add(name="Łódź")
    await make_old(shop, product.id, " łodz")
    await shop.products.delete(product.id, ADMIN)

    assert await reindex(shop.store) == 0
    assert await shop.store.get(ProductText, product.id) is None
