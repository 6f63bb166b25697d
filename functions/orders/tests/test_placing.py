"""Placing an order: what is refused, what it costs, and what an Idempotency-Key guarantees."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from events.catalog import Line, Money, OrderPlaced
from functions.orders import service
from functions.orders.checkout import Item, Offer, Placement
from functions.orders.domain import Status
from functions.orders.tests.world import (
    ADA,
    BOB,
    CUP,
    HOME,
    PAYMENTS,
    RETIRED,
    TEAPOT,
    UNKNOWN,
    YEN,
    World,
    captured,
    deleted,
    wanted,
)
from functions.runtime.addresses import PostalAddress
from functions.runtime.currencies import PROVIDERS
from functions.runtime.errors import Code, ServiceError, unavailable
from functions.runtime.identity import ANONYMOUS


async def refusal(world: World, placement: Placement) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await world.place(placement)
    assert not world.memory.events
    return caught.value


def fields(error: ServiceError) -> list[str]:
    return [violation.field for violation in error.violations]


async def test_an_order_is_priced_by_the_catalogue_and_announced(world: World) -> None:
    order = await world.place(wanted((TEAPOT, 2), (CUP, 3)))
    assert order.status is Status.PLACED
    assert order.total == Money(2 * 2_500 + 3 * 499, "EUR")
    assert [(line.name, line.sku) for line in order.lines] == [("Teapot", "TEA-1"), ("Cup", "CUP-1")]
    assert [(entry.status, entry.reason) for entry in order.timeline] == [(Status.PLACED, "")]
    lines = [Line(TEAPOT, 2, Money(2_500, "EUR")), Line(CUP, 3, Money(499, "EUR"))]
    assert world.memory.events == [
        OrderPlaced(order_id=order.id, user_id=ADA.subject, lines=lines, total=order.total)
    ]
    assert world.catalogue.asked == 1


async def test_a_later_price_does_not_change_an_order(world: World) -> None:
    order = await world.place()
    world.catalogue.products[TEAPOT] = replace(world.catalogue.products[TEAPOT], price=Money(1, "EUR"))
    assert (await world.read(order.id)).total == Money(2_500, "EUR")


async def test_everything_wrong_is_named_at_once(world: World) -> None:
    address = replace(HOME, name=" ", city="x" * 101, country="UK", line1="12\nmain")
    placement = wanted(
        ("teapot", 1), (CUP, 0), (CUP, 1001), key="", token="4242 4242 4242 4242", address=address
    )
    error = await refusal(world, placement)
    assert error.code is Code.INVALID_ARGUMENT
    assert fields(error) == [
        "lines[0].product_id",
        "lines[1].quantity",
        "lines[2].product_id",
        "lines[2].quantity",
        "shipping_address.name",
        "shipping_address.line1",
        "shipping_address.city",
        "shipping_address.country",
        "payment_token",
        "idempotency_key",
    ]
    assert world.catalogue.asked == 0


@pytest.mark.parametrize("items", [[], [Item(f"prd_{n:032x}", 1) for n in range(51)]])
async def test_an_order_has_one_to_fifty_lines(world: World, items: list[Item]) -> None:
    assert fields(await refusal(world, replace(wanted(), items=items))) == ["lines"]


async def test_an_order_needs_an_address(world: World) -> None:
    assert fields(await refusal(world, wanted(address=None))) == ["shipping_address"]


@pytest.mark.parametrize("quantity", [-1, 0, 1001, 2**31 - 1])
async def test_quantities_are_bounded(world: World, quantity: int) -> None:
    assert fields(await refusal(world, wanted((TEAPOT, quantity)))) == ["lines[0].quantity"]


@pytest.mark.parametrize(
    "token", ["", "4111111111111111", "4111-1111-1111-1111", "tok ok", "t" * 256, "tok\n"]
)
async def test_only_a_providers_token_pays(world: World, token: str) -> None:
    assert fields(await refusal(world, wanted(token=token))) == ["payment_token"]


@pytest.mark.parametrize("token", ["tok_ok", "pm_1NXWPnCo6bFb1KQto6C8OWvE", "tok:1-2.3"])
async def test_tokens_of_several_shapes_are_taken(world: World, token: str) -> None:
    assert (await world.place(wanted(token=token))).status is Status.PLACED


async def test_a_product_that_is_not_in_the_catalogue_is_named(world: World) -> None:
    error = await refusal(world, wanted((TEAPOT, 1), (UNKNOWN, 1), (RETIRED, 1)))
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "PRODUCT_UNKNOWN")
    assert fields(error) == ["lines[1].product_id"]


async def test_a_product_that_is_not_for_sale_is_named(world: World) -> None:
    error = await refusal(world, wanted((TEAPOT, 1), (RETIRED, 1)))
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "PRODUCT_INACTIVE")
    assert fields(error) == ["lines[1].product_id"]


async def test_one_order_has_one_currency(world: World) -> None:
    error = await refusal(world, wanted((TEAPOT, 1), (YEN, 1)))
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "CURRENCY_MIXED")
    assert fields(error) == ["lines[1].product_id"]


async def test_a_total_beyond_all_reason_is_refused(world: World) -> None:
    world.catalogue.products[TEAPOT] = Offer(TEAPOT, "T", "Teapot", Money(2**62, "EUR"), active=True)
    assert (await refusal(world, wanted((TEAPOT, 1000)))).reason == "TOTAL_TOO_LARGE"


async def test_without_the_catalogue_nothing_is_placed(world: World) -> None:
    world.catalogue.failure = unavailable("SERVICE_UNAVAILABLE", "Try again.")
    assert (await refusal(world, wanted(key="k"))).code is Code.UNAVAILABLE
    world.catalogue.failure = None
    assert (await world.place(wanted(key="k"))).status is Status.PLACED


async def test_only_people_place_orders(world: World) -> None:
    for caller, code in ((ANONYMOUS, Code.UNAUTHENTICATED), (PAYMENTS, Code.PERMISSION_DENIED)):
        with pytest.raises(ServiceError) as caught:
            await world.place(caller=caller)
        assert caught.value.code is code


async def test_without_a_key_every_call_is_an_order(world: World) -> None:
    first, second = await world.place(), await world.place()
    assert first.id != second.id


async def test_fifty_requests_at_once_with_one_key_make_one_order(world: World) -> None:
    orders = await asyncio.gather(*[world.place(wanted(key="checkout-1")) for _ in range(50)])
    assert {order.id for order in orders} == {orders[0].id}
    assert len(world.recorded(OrderPlaced)) == 1


async def test_a_key_is_a_persons_own(world: World) -> None:
    mine = await world.place(wanted(key="k"), caller=ADA)
    yours = await world.place(wanted(key="k"), caller=BOB)
    assert mine.id != yours.id


async def test_a_key_used_for_another_request_is_refused(world: World) -> None:
    await world.place(wanted(key="k"))
    with pytest.raises(ServiceError) as caught:
        await world.place(wanted((TEAPOT, 2), key="k"))
    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_REUSED")
    assert len(world.recorded(OrderPlaced)) == 1


async def test_a_replay_gives_the_first_answer_whatever_happened_since(world: World) -> None:
    first = await world.place(wanted(key="k"))
    await world.hear(captured(first))
    del world.catalogue.products[TEAPOT]
    assert await world.place(wanted(key="k")) == first
    assert world.catalogue.asked == 1


async def test_a_refused_request_leaves_its_key_free(world: World) -> None:
    with pytest.raises(ServiceError):
        await world.place(wanted((UNKNOWN, 1), key="k"))
    assert (await world.place(wanted((TEAPOT, 1), key="k"))).status is Status.PLACED


async def test_a_deleted_account_places_no_order_while_its_token_lives(world: World) -> None:
    await world.hear(deleted(ADA))
    with pytest.raises(ServiceError) as caught:
        await world.place(wanted(key="k"))
    assert (caught.value.code, caught.value.reason) == (Code.UNAUTHENTICATED, "ACCOUNT_DELETED")
    assert (await world.place(caller=BOB)).status is Status.PLACED


async def test_neither_token_nor_address_shows_in_a_repr_or_an_event(world: World) -> None:
    placement = wanted(key="k", token="tok_secret")
    order = await world.place(placement)
    stored = await world.read(order.id)
    rows = await world.store.outbox(world.clock.now().max.replace(tzinfo=order.created_at.tzinfo), 10)
    shown = f"{placement!r} {stored!r} {stored.shipping_address!r} {rows!r}"
    assert stored.payment_token == "tok_secret"
    assert "tok_secret" not in shown
    assert "Lovelace" not in shown


async def test_payments_alone_learns_what_to_charge(world: World) -> None:
    order = await world.place(wanted(token="tok_secret"))
    instruction = await service.payment_instruction(world.orders, PAYMENTS, order.id)
    assert (instruction.payment_token, instruction.payable) == ("tok_secret", True)
    for caller in (ADA, replace(PAYMENTS, subject="notifications")):
        with pytest.raises(ServiceError) as caught:
            await service.payment_instruction(world.orders, caller, order.id)
        assert caught.value.code is Code.PERMISSION_DENIED


def test_an_address_has_no_repr_of_its_own() -> None:
    assert "Lovelace" not in repr(PostalAddress("Ada Lovelace", "1", "London", "1", "GB"))


@pytest.mark.parametrize(
    ("price", "quantity", "refused"),
    [
        (Money(10, "EUR"), 4, True),
        (Money(10, "EUR"), 5, False),
        (Money(99_999_999, "EUR"), 1, False),
        (Money(99_999_999, "EUR"), 2, True),
        (Money(1005, "KWD"), 1, True),
        (Money(1005, "KWD"), 2, False),
        (Money(1000, "IQD"), 1, True),
    ],
    ids=str,
)
async def test_a_sum_that_the_provider_cannot_charge_is_refused_before_any_stock_is_held(
    world: World, price: Money, quantity: int, refused: bool
) -> None:
    world.catalogue.products[TEAPOT] = replace(world.catalogue.products[TEAPOT], price=price)
    placed = service.place(
        world.orders, world.catalogue, world.clock, ADA, wanted((TEAPOT, quantity)), PROVIDERS["stripe"]
    )
    if not refused:
        assert (await placed).total == Money(price.amount * quantity, price.currency)
        return
    with pytest.raises(ServiceError) as raised:
        await placed
    assert (raised.value.code, raised.value.reason) == (Code.INVALID_ARGUMENT, "TOTAL_NOT_CHARGEABLE")
    assert not world.memory.events


@pytest.mark.parametrize(
    ("address", "state"),
    [
        (PostalAddress("山田　太郎", "千代田1-1", "千代田区", "100-0001", "JP"), "東京都"),
        (PostalAddress("Ada", "1 Peak Road", "Hong Kong", "", "HK"), ""),
        (PostalAddress("Ada", "1 Creek Road", "Dubai", "", "AE"), "Dubai"),
        (PostalAddress("Ada", "1 Broadway", "New York", "10001", "US"), "NY"),
    ],
    ids=lambda value: getattr(value, "country", None),
)
async def test_an_order_goes_to_any_country_as_it_writes_addresses(
    world: World, address: PostalAddress, state: str
) -> None:
    order = await world.place(wanted(address=address))
    assert (await world.read(order.id)).shipping_address == replace(address, state=state)


async def test_an_address_that_its_country_does_not_know_is_refused(world: World) -> None:
    address = PostalAddress("Ada", "1 Broadway", "New York", "1000", "US", state="Bavaria")
    assert fields(await refusal(world, wanted(address=address))) == [
        "shipping_address.postal_code",
        "shipping_address.state",
    ]


async def test_an_order_of_what_costs_nothing_is_confirmed_for_nothing(world: World) -> None:
    world.catalogue.products[TEAPOT] = replace(world.catalogue.products[TEAPOT], price=Money(0, "EUR"))
    order = await world.place()
    await world.hear(captured(order))
    assert (await world.read(order.id)).status is Status.CONFIRMED


async def test_another_total_than_the_customer_was_shown_places_nothing_and_names_both(world: World) -> None:
    seen = Money(2_500, "EUR")
    world.catalogue.products[TEAPOT] = replace(world.catalogue.products[TEAPOT], price=Money(99_000, "EUR"))
    asked = replace(wanted(key="k"), expected_total=seen)
    error = await refusal(world, asked)
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "PRICE_CHANGED")
    assert error.amounts == {"expected_total": seen, "total": Money(99_000, "EUR")}
    # The key is free: the customer agrees to the new total, or the old price comes back.
    agreed = replace(asked, expected_total=Money(99_000, "EUR"), fingerprint="agreed")
    placed = await world.place(agreed)
    assert placed.total == Money(99_000, "EUR")
    world.catalogue.products[TEAPOT] = replace(world.catalogue.products[TEAPOT], price=Money(1, "EUR"))
    assert await world.place(agreed) == placed, "the first answer, whatever the price is now"


@pytest.mark.parametrize(
    ("expected", "field"),
    [
        (Money(-1, "EUR"), "expected_total.amount"),
        (Money(10**13, "EUR"), "expected_total.amount"),
        (Money(2_500, "eur"), "expected_total.currency"),
    ],
    ids=str,
)
async def test_an_expectation_that_no_order_can_meet_is_refused_by_its_field(
    world: World, expected: Money, field: str
) -> None:
    error = await refusal(world, replace(wanted(), expected_total=expected))
    assert error.code is Code.INVALID_ARGUMENT
    assert fields(error) == [field]


async def test_another_currency_is_another_total(world: World) -> None:
    error = await refusal(world, replace(wanted(), expected_total=Money(2_500, "USD")))
    assert error.reason == "PRICE_CHANGED"
