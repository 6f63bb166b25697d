from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from events.catalog import Money
from functions.products.domain import Category, UpdateProduct
from functions.products.tests.shop import (
    ADMIN,
    CUSTOMER,
    EURO,
    ORDERS,
    Shop,
    create_product,
    products_service,
)
from functions.runtime.currencies import PROVIDERS
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import ANONYMOUS, Identity
from functions.runtime.ids import is_id, new_id


async def edited(shop: Shop, product_id: str, version: int | None = None, **fields: object) -> object:
    command = UpdateProduct(product_id, version=version, **fields)  # type: ignore[arg-type] # fields are named by the tests
    return await shop.products.update(command, ADMIN)


async def categories(shop: Shop) -> dict[str, int]:
    return {category.id: category.products for category in await shop.products.list_categories()}


def fields_of(error: ServiceError) -> list[str]:
    return [violation.field for violation in error.violations]


async def test_a_new_product_can_be_read_and_has_no_stock(shop: Shop) -> None:
    product = await shop.add(name="Kettle")

    found = await shop.products.get(product.id, ANONYMOUS)

    assert is_id("prd", found.id)
    assert found == product
    assert (found.name, found.price, found.active, found.version) == ("Kettle", EURO, True, 1)
    assert await shop.counts(product.id) == (0, 0)


async def test_everything_that_is_wrong_with_a_product_is_said_at_once(shop: Shop) -> None:
    wrong = create_product(
        sku="a b",
        name=" ",
        description="x" * 5001,
        category="Kitchen",
        price=Money(-5, "EUX"),
        image_urls=["https://shop.example/a.png", "http://shop.example/b.png"],
    )

    with pytest.raises(ServiceError) as raised:
        await shop.products.create(wrong, ADMIN)

    assert raised.value.code is Code.INVALID_ARGUMENT
    assert fields_of(raised.value) == [
        "sku",
        "name",
        "description",
        "category",
        "price.amount",
        "price.currency",
        "image_urls[1]",
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sku", ""),
        ("sku", "x" * 65),
        ("sku", "käse"),
        ("name", ""),
        ("name", "x" * 201),
        ("name", "two\nlines"),
        ("category", ""),
        ("category", "x" * 51),
        ("price", None),
        ("description", "bell \a"),
        ("image_urls", ["https://shop.example/a"] * 11),
        ("image_urls[0]", ["https://"]),
        ("image_urls[0]", ["https://user:word@shop.example/a"]),
        ("image_urls[0]", ["javascript:alert(1)//https://shop.example"]),
        ("image_urls[0]", ['https://shop.example/a.png"onload="x']),
        ("image_urls[0]", ["https://shop.example/" + "a" * 2048]),
        ("price.amount", Money(-1, "EUR")),
        ("price.amount", Money(10_000_000_001, "EUR")),
        ("price.currency", Money(1, "eur")),
        ("price.currency", Money(1, "XXX")),
    ],
)
async def test_a_field_out_of_bounds_is_named(shop: Shop, field: str, value: object) -> None:
    wrong = create_product(**{field.partition("[")[0].partition(".")[0]: value})

    with pytest.raises(ServiceError) as raised:
        await shop.products.create(wrong, ADMIN)

    assert fields_of(raised.value) == [field]


async def test_bounds_themselves_are_within(shop: Shop) -> None:
    await shop.add(
        sku="x" * 64,
        name="é" * 200,
        description="line\n\tline " * 454,
        category="a" * 50,
        price=Money(10_000_000_000, "JPY"),
        image_urls=["https://shop.example:8443/a/b.png?size=l#top"] * 10,
    )


async def test_two_products_cannot_have_one_sku(shop: Shop) -> None:
    await shop.add(sku="KET-1")

    with pytest.raises(ServiceError) as raised:
        await shop.add(sku="KET-1")

    assert (raised.value.code, raised.value.reason) == (Code.ALREADY_EXISTS, "SKU_TAKEN")


async def test_of_many_at_once_one_gets_the_sku(shop: Shop) -> None:
    tries = [shop.products.create(create_product(sku="KET-1"), ADMIN) for _ in range(20)]

    results = await asyncio.gather(*tries, return_exceptions=True)

    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert await categories(shop) == {"kitchen": 1}


async def test_only_admins_write(shop: Shop) -> None:
    product = await shop.add()
    writes: list[Callable[[Identity], Awaitable[object]]] = [
        lambda caller: shop.products.create(create_product(), caller),
        lambda caller: shop.products.update(UpdateProduct(product.id, name="Mine"), caller),
        lambda caller: shop.products.delete(product.id, caller),
    ]

    for write in writes:
        for caller, code in [
            (CUSTOMER, Code.PERMISSION_DENIED),
            (ORDERS, Code.PERMISSION_DENIED),
            (ANONYMOUS, Code.UNAUTHENTICATED),
        ]:
            with pytest.raises(ServiceError) as raised:
                await write(caller)
            assert raised.value.code is code


async def test_an_inactive_product_is_for_admins_and_services(shop: Shop) -> None:
    product = await shop.add(active=False)

    assert (await shop.products.get(product.id, ADMIN)).id == product.id
    assert (await shop.products.get(product.id, ORDERS)).id == product.id
    for caller in (ANONYMOUS, CUSTOMER):
        with pytest.raises(ServiceError) as raised:
            await shop.products.get(product.id, caller)
        assert raised.value.reason == "PRODUCT_NOT_FOUND"


@pytest.mark.parametrize(("caller", "seen"), [(ANONYMOUS, 1), (CUSTOMER, 1), (ADMIN, 2), (ORDERS, 2)])
async def test_a_batch_leaves_out_what_is_unknown_or_not_for_the_caller(
    shop: Shop, caller: Identity, seen: int
) -> None:
    on_sale, hidden = await shop.add(), await shop.add(active=False)

    found = await shop.products.get_many([on_sale.id, hidden.id, on_sale.id, new_id("prd"), "?"], caller)

    assert [product.id for product in found] == [on_sale.id, hidden.id][:seen]


@pytest.mark.parametrize("count", [0, 101])
async def test_a_batch_has_bounds(shop: Shop, count: int) -> None:
    with pytest.raises(ServiceError) as raised:
        await shop.products.get_many(["prd"] * count, ANONYMOUS)

    assert fields_of(raised.value) == ["product_ids"]


async def test_an_update_changes_only_what_is_present(shop: Shop) -> None:
    product = await shop.add(name="Kettle", description="Boils", image_urls=["https://shop.example/a.png"])
    shop.clock.advance(timedelta(hours=1))

    await edited(shop, product.id, name="Pot", image_urls=[])

    found = await shop.products.get(product.id, ANONYMOUS)
    assert (found.name, found.description, found.image_urls) == ("Pot", "Boils", [])
    assert found.version == 2
    assert found.updated_at - found.created_at == timedelta(hours=1)


async def test_an_update_of_what_has_changed_since_is_refused(shop: Shop) -> None:
    product = await shop.add()
    await edited(shop, product.id, 1, name="Pot")

    with pytest.raises(ServiceError) as raised:
        await edited(shop, product.id, 1, name="Pan")

    assert (raised.value.code, raised.value.reason) == (Code.ABORTED, "VERSION_MISMATCH")
    assert (await shop.products.get(product.id, ANONYMOUS)).name == "Pot"


async def test_an_update_that_changes_nothing_keeps_the_version(shop: Shop) -> None:
    product = await shop.add(name="Kettle")
    shop.clock.advance(timedelta(hours=1))

    await edited(shop, product.id, name="Kettle")

    assert await shop.products.get(product.id, ANONYMOUS) == product


async def test_an_invalid_update_changes_nothing(shop: Shop) -> None:
    product = await shop.add()

    with pytest.raises(ServiceError) as raised:
        await edited(shop, product.id, name="Pot", price=Money(5, "???"), category="")

    assert fields_of(raised.value) == ["category", "price.currency"]
    assert await shop.products.get(product.id, ANONYMOUS) == product


async def test_an_unknown_product_cannot_be_changed(shop: Shop) -> None:
    for attempt in (
        edited(shop, new_id("prd"), name="Pot"),
        shop.products.delete("nonsense", ADMIN),
    ):
        with pytest.raises(ServiceError) as raised:
            await attempt
        assert (raised.value.code, raised.value.reason) == (Code.NOT_FOUND, "PRODUCT_NOT_FOUND")


async def test_a_deleted_product_is_gone_for_customers_and_its_sku_is_free(shop: Shop) -> None:
    product = await shop.add(7, sku="KET-1", name="Kettle")

    for _ in range(2):
        await shop.products.delete(product.id, ADMIN)

    assert await shop.names() == []
    assert await shop.names("kettle") == []
    assert not (await shop.products.get(product.id, ADMIN)).active
    assert await shop.counts(product.id) == (7, 0)
    again = await shop.add(sku="KET-1")
    assert await shop.names() == ["Kettle"]
    await shop.products.delete(product.id, ADMIN)
    assert (await shop.products.get(again.id, ANONYMOUS)).active


async def test_a_deleted_product_does_not_come_back(shop: Shop) -> None:
    product = await shop.add()
    await shop.products.delete(product.id, ADMIN)

    with pytest.raises(ServiceError) as raised:
        await edited(shop, product.id, active=True)

    assert raised.value.reason == "PRODUCT_DELETED"


async def test_categories_count_their_active_products(shop: Shop) -> None:
    kettle = await shop.add(category="kitchen")
    await shop.add(category="kitchen")
    await shop.add(category="garden", active=False)
    rake = await shop.add(category="garden")
    assert await categories(shop) == {"garden": 1, "kitchen": 2}

    await edited(shop, kettle.id, category="antiques")
    await edited(shop, rake.id, active=False)
    assert await categories(shop) == {"antiques": 1, "kitchen": 1}

    await edited(shop, rake.id, category="kitchen", active=True)
    await shop.products.delete(kettle.id, ADMIN)
    assert await categories(shop) == {"kitchen": 2}


async def test_category_counts_hold_under_many_moves_at_once(shop: Shop) -> None:
    products = [await shop.add(category="a") for _ in range(5)]

    moves = [edited(shop, product.id, category=slug) for slug in "bcbd" for product in products]
    await asyncio.gather(*moves)

    counted = await categories(shop)
    actual = [(await shop.store.get_many(type(p), [p.id]))[p.id].category for p in products]
    assert counted == {slug: actual.count(slug) for slug in sorted(set(actual))}
    assert await shop.store.get(Category, "a") is None


async def test_a_price_that_the_provider_cannot_charge_is_refused_when_it_is_set(shop: Shop) -> None:
    products = products_service(shop.store, shop.clock, PROVIDERS["stripe"])
    product = await products.create(create_product(), ADMIN)
    for price, field in [
        (Money(5124, "KWD"), "price.amount"),
        (Money(199_950, "MGA"), "price.amount"),
        (Money(10_000_000_000, "EUR"), "price.amount"),
        (Money(1000, "IQD"), "price.currency"),
    ]:
        tries = [
            products.create(create_product(price=price), ADMIN),
            products.update(UpdateProduct(product.id, price=price), ADMIN),
        ]
        for refused in tries:
            with pytest.raises(ServiceError) as raised:
                await refused
            assert raised.value.reason == "PRICE_NOT_CHARGEABLE"
            assert [violation.field for violation in raised.value.violations] == [field]
    assert await shop.products.get(product.id, ADMIN) == product
    updated = await products.update(UpdateProduct(product.id, price=Money(5120, "KWD")), ADMIN)
    assert updated.price == Money(5120, "KWD")


async def test_a_product_may_be_free(shop: Shop) -> None:
    product = await shop.add(price=Money(0, "EUR"))
    assert (await shop.products.get(product.id, ANONYMOUS)).price == Money(0, "EUR")
