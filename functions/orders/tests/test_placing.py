"""Placing an order: what is refused, what it costs, and what an Idempotency-Key guarantees."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from events.catalog import Line, Money, OrderPlaced
from functions.orders.domain import Status
from functions.orders.pricing import Offer, RequestedLine
from functions.orders.service import PlaceOrder
from functions.orders.tests.shop import (
    ADA,
    BOB,
    CUP,
    HOME,
    PAYMENTS,
    RETIRED,
    TEAPOT,
    UNKNOWN,
    YEN,
    Shop,
    captured,
    deleted,
    place_order,
)
from functions.runtime.addresses import PostalAddress
from functions.runtime.currencies import PROVIDERS
from functions.runtime.errors import Code, ServiceError, unavailable
from functions.runtime.identity import ANONYMOUS


async def refusal(shop: Shop, command: PlaceOrder) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await shop.place(command)
    assert not shop.memory.events
    return caught.value


def fields(error: ServiceError) -> list[str]:
    return [violation.field for violation in error.violations]


async def test_an_order_is_priced_by_the_catalogue_and_announced(shop: Shop) -> None:
    order = await shop.place(place_order((TEAPOT, 2), (CUP, 3)))
    assert order.status is Status.PLACED
    assert order.total == Money(2 * 2_500 + 3 * 499, "EUR")
    assert [(line.name, line.sku) for line in order.lines] == [("Teapot", "TEA-1"), ("Cup", "CUP-1")]
    assert [(entry.status, entry.reason) for entry in order.timeline] == [(Status.PLACED, "")]
    lines = [Line(TEAPOT, 2, Money(2_500, "EUR")), Line(CUP, 3, Money(499, "EUR"))]
    assert shop.memory.events == [OrderPlaced(order_id=order.id, user_id=ADA.subject, lines=lines, total=order.total)]
    assert shop.catalogue.calls == 1


async def test_a_later_price_does_not_change_an_order(shop: Shop) -> None:
    order = await shop.place()
    shop.catalogue.products[TEAPOT] = replace(shop.catalogue.products[TEAPOT], price=Money(1, "EUR"))
    assert (await shop.read(order.id)).total == Money(2_500, "EUR")


async def test_everything_wrong_is_named_at_once(shop: Shop) -> None:
    address = replace(HOME, name=" ", city="x" * 101, country="UK", line1="12\nmain")
    command = place_order(("teapot", 1), (CUP, 0), (CUP, 1001), key="", token="4242 4242 4242 4242", address=address)
    error = await refusal(shop, command)
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
    assert shop.catalogue.calls == 0


@pytest.mark.parametrize("lines", [[], [RequestedLine(f"prd_{n:032x}", 1) for n in range(51)]])
async def test_an_order_has_one_to_fifty_lines(shop: Shop, lines: list[RequestedLine]) -> None:
    assert fields(await refusal(shop, replace(place_order(), lines=lines))) == ["lines"]


async def test_an_order_needs_an_address(shop: Shop) -> None:
    assert fields(await refusal(shop, place_order(address=None))) == ["shipping_address"]


@pytest.mark.parametrize("quantity", [-1, 0, 1001, 2**31 - 1])
async def test_quantities_are_bounded(shop: Shop, quantity: int) -> None:
    assert fields(await refusal(shop, place_order((TEAPOT, quantity)))) == ["lines[0].quantity"]


@pytest.mark.parametrize("token", ["", "4111111111111111", "4111-1111-1111-1111", "tok ok", "t" * 256, "tok\n"])
async def test_only_a_providers_token_pays(shop: Shop, token: str) -> None:
    assert fields(await refusal(shop, place_order(token=token))) == ["payment_token"]


@pytest.mark.parametrize("token", ["tok_ok", "pm_1NXWPnCo6bFb1KQto6C8OWvE", "tok:1-2.3"])
async def test_tokens_of_several_shapes_are_taken(shop: Shop, token: str) -> None:
    assert (await shop.place(place_order(token=token))).status is Status.PLACED


async def test_a_product_that_is_not_in_the_catalogue_is_named(shop: Shop) -> None:
    error = await refusal(shop, place_order((TEAPOT, 1), (UNKNOWN, 1), (RETIRED, 1)))
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "PRODUCT_UNKNOWN")
    assert fields(error) == ["lines[1].product_id"]


async def test_a_product_that_is_not_for_sale_is_named(shop: Shop) -> None:
    error = await refusal(shop, place_order((TEAPOT, 1), (RETIRED, 1)))
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "PRODUCT_INACTIVE")
    assert fields(error) == ["lines[1].product_id"]


async def test_one_order_has_one_currency(shop: Shop) -> None:
    error = await refusal(shop, place_order((TEAPOT, 1), (YEN, 1)))
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "CURRENCY_MIXED")
    assert fields(error) == ["lines[1].product_id"]


async def test_a_total_beyond_all_reason_is_refused(shop: Shop) -> None:
    shop.catalogue.products[TEAPOT] = Offer(TEAPOT, "T", "Teapot", Money(2**62, "EUR"), active=True)
    assert (await refusal(shop, place_order((TEAPOT, 1000)))).reason == "TOTAL_TOO_LARGE"


async def test_without_the_catalogue_nothing_is_placed(shop: Shop) -> None:
    shop.catalogue.failure = unavailable("SERVICE_UNAVAILABLE", "Try again.")
    assert (await refusal(shop, place_order(key="k"))).code is Code.UNAVAILABLE
    shop.catalogue.failure = None
    assert (await shop.place(place_order(key="k"))).status is Status.PLACED


async def test_only_people_place_orders(shop: Shop) -> None:
    for caller, code in ((ANONYMOUS, Code.UNAUTHENTICATED), (PAYMENTS, Code.PERMISSION_DENIED)):
        with pytest.raises(ServiceError) as caught:
            await shop.place(caller=caller)
        assert caught.value.code is code


async def test_without_a_key_every_call_is_an_order(shop: Shop) -> None:
    first, second = await shop.place(), await shop.place()
    assert first.id != second.id


async def test_fifty_requests_at_once_with_one_key_make_one_order(shop: Shop) -> None:
    orders = await asyncio.gather(*[shop.place(place_order(key="checkout-1")) for _ in range(50)])
    assert {order.id for order in orders} == {orders[0].id}
    assert len(shop.recorded(OrderPlaced)) == 1


async def test_a_key_is_a_persons_own(shop: Shop) -> None:
    mine = await shop.place(place_order(key="k"), caller=ADA)
    yours = await shop.place(place_order(key="k"), caller=BOB)
    assert mine.id != yours.id


async def test_a_key_used_for_another_request_is_refused(shop: Shop) -> None:
    await shop.place(place_order(key="k"))
    with pytest.raises(ServiceError) as caught:
        await shop.place(place_order((TEAPOT, 2), key="k"))
    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_REUSED")
    assert len(shop.recorded(OrderPlaced)) == 1


async def test_a_replay_gives_the_first_answer_whatever_happened_since(shop: Shop) -> None:
    first = await shop.place(place_order(key="k"))
    await shop.receive(captured(first))
    del shop.catalogue.products[TEAPOT]
    assert await shop.place(place_order(key="k")) == first
    with pytest.raises(ServiceError) as caught:
        await shop.place(place_order((TEAPOT, 2), key="k"))
    assert caught.value.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_a_refused_request_leaves_its_key_free(shop: Shop) -> None:
    with pytest.raises(ServiceError):
        await shop.place(place_order((UNKNOWN, 1), key="k"))
    assert (await shop.place(place_order((TEAPOT, 1), key="k"))).status is Status.PLACED


async def test_a_deleted_account_places_no_order_while_its_token_lives(shop: Shop) -> None:
    await shop.receive(deleted(ADA))
    with pytest.raises(ServiceError) as caught:
        await shop.place(place_order(key="k"))
    assert (caught.value.code, caught.value.reason) == (Code.UNAUTHENTICATED, "ACCOUNT_DELETED")
    assert (await shop.place(caller=BOB)).status is Status.PLACED


async def test_neither_token_nor_address_shows_in_a_repr_or_an_event(shop: Shop) -> None:
    command = place_order(key="k", token="tok_secret")
    order = await shop.place(command)
    stored = await shop.read(order.id)
    rows = await shop.store.outbox(shop.clock.now().max.replace(tzinfo=order.created_at.tzinfo), 10)
    shown = f"{command!r} {stored!r} {stored.shipping_address!r} {rows!r}"
    assert stored.payment_token == "tok_secret"
    assert "tok_secret" not in shown
    assert "Lovelace" not in shown


async def test_payments_alone_learns_what_to_charge(shop: Shop) -> None:
    order = await shop.place(place_order(token="tok_secret"))
    instruction = await shop.orders.get_payment_instruction(order.id, PAYMENTS)
    assert (instruction.payment_token, instruction.payable) == ("tok_secret", True)
    for caller in (ADA, replace(PAYMENTS, subject="notifications")):
        with pytest.raises(ServiceError) as caught:
            await shop.orders.get_payment_instruction(order.id, caller)
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
    shop: Shop, price: Money, quantity: int, refused: bool
) -> None:
    shop.catalogue.products[TEAPOT] = replace(shop.catalogue.products[TEAPOT], price=price)
    orders = shop.compose(provider_limits=PROVIDERS["stripe"])
    placed = orders.place(place_order((TEAPOT, quantity)), ADA)
    if not refused:
        assert (await placed).total == Money(price.amount * quantity, price.currency)
        return
    with pytest.raises(ServiceError) as raised:
        await placed
    assert (raised.value.code, raised.value.reason) == (Code.INVALID_ARGUMENT, "TOTAL_NOT_CHARGEABLE")
    assert not shop.memory.events


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
    shop: Shop, address: PostalAddress, state: str
) -> None:
    order = await shop.place(place_order(address=address))
    assert (await shop.read(order.id)).shipping_address == replace(address, state=state)


async def test_an_address_that_its_country_does_not_know_is_refused(shop: Shop) -> None:
    address = PostalAddress("Ada", "1 Broadway", "New York", "1000", "US", state="Bavaria")
    assert fields(await refusal(shop, place_order(address=address))) == [
        "shipping_address.postal_code",
        "shipping_address.state",
    ]


async def test_an_order_of_what_costs_nothing_is_confirmed_for_nothing(shop: Shop) -> None:
    shop.catalogue.products[TEAPOT] = replace(shop.catalogue.products[TEAPOT], price=Money(0, "EUR"))
    order = await shop.place()
    await shop.receive(captured(order))
    assert (await shop.read(order.id)).status is Status.CONFIRMED


async def test_another_total_than_the_customer_was_shown_places_nothing_and_names_both(shop: Shop) -> None:
    seen = Money(2_500, "EUR")
    shop.catalogue.products[TEAPOT] = replace(shop.catalogue.products[TEAPOT], price=Money(99_000, "EUR"))
    asked = replace(place_order(key="k"), expected_total=seen)
    error = await refusal(shop, asked)
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "PRICE_CHANGED")
    assert error.amounts == {"expected_total": seen, "total": Money(99_000, "EUR")}
    # The key is free: the customer agrees to the new total, or the old price comes back.
    agreed = replace(asked, expected_total=Money(99_000, "EUR"), fingerprint="agreed")
    placed = await shop.place(agreed)
    assert placed.total == Money(99_000, "EUR")
    shop.catalogue.products[TEAPOT] = replace(shop.catalogue.products[TEAPOT], price=Money(1, "EUR"))
    assert await shop.place(agreed) == placed, "the first answer, whatever the price is now"


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
    shop: Shop, expected: Money, field: str
) -> None:
    error = await refusal(shop, replace(place_order(), expected_total=expected))
    assert error.code is Code.INVALID_ARGUMENT
    assert fields(error) == [field]


async def test_another_currency_is_another_total(shop: Shop) -> None:
    error = await refusal(shop, replace(place_order(), expected_total=Money(2_500, "USD")))
    assert error.reason == "PRICE_CHANGED"
