"""Inventory denial and card testing: what attackers get done by unpaid orders, and what honest customers still may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import count, repeat

from functions.orders.domain import Order
from functions.orders.tests.shop import ADA, TEAPOT, Shop, captured, declined, place_order
from functions.orders.velocity import VelocityLimits
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import CUSTOMER, Identity
from functions.runtime.ids import new_id

DEFAULTS = VelocityLimits()
ADDRESS = "192.0.2.66"
PHONE = "d" * 32

Answer = Callable[[Order], object]


def strangers(device: str = "") -> Iterator[Identity]:
    """New accounts, an order each."""
    while True:
        yield Identity(new_id("usr"), frozenset({CUSTOMER}), device=device)


def addresses() -> Iterator[str]:
    """Network addresses that one device gets one after another."""
    return (f"198.51.{number // 256}.{number % 256}" for number in count())


async def attempts(
    shop: Shop,
    number: int,
    accounts: Iterator[Identity],
    at: Iterator[str] | None = None,
    *,
    pieces: int = 1,
    answer: Answer | None = None,
) -> list[Order]:
    """The orders that came through, of so many within twelve seconds."""
    placed = []
    orders = shop.compose(velocity_limits=DEFAULTS)
    at = at or repeat(ADDRESS)
    for _ in range(number):
        shop.clock.advance(timedelta(seconds=12) / number)
        command = replace(place_order((TEAPOT, pieces)), client_address=next(at))
        try:
            order = await orders.place(command, next(accounts))
        except ServiceError as error:
            assert (error.code, bool(error.retry_after)) == (Code.RESOURCE_EXHAUSTED, True)  # noqa: PT017 - or else a fault
            continue
        placed.append(order)
        if answer:
            await shop.receive(answer(order))  # type: ignore[arg-type] # an event
    return placed


async def test_a_thousand_orders_by_one_account_hold_the_stock_of_ten() -> None:
    assert len(await attempts(Shop(), 1000, repeat(ADA))) == DEFAULTS.account.unpaid_orders


async def test_two_hundred_and_fifty_one_cards_are_not_tested_by_one_account() -> None:
    placed = await attempts(Shop(), 251, repeat(ADA), answer=declined)
    assert len(placed) <= DEFAULTS.account.declines_per_hour + 1


async def test_nor_by_an_account_a_card_from_one_address() -> None:
    placed = await attempts(Shop(), 1000, strangers(), answer=declined)
    assert len(placed) <= 2 * DEFAULTS.address.declines_per_hour


async def test_nor_by_an_account_a_card_from_one_device_that_changes_its_address() -> None:
    placed = await attempts(Shop(), 1000, strangers(PHONE), addresses(), answer=declined)
    assert len(placed) <= DEFAULTS.device.declines_per_hour + 1


async def test_one_device_with_an_account_for_each_order_holds_the_orders_of_one() -> None:
    assert len(await attempts(Shop(), 1000, strangers(PHONE))) == DEFAULTS.device.unpaid_orders


async def test_a_client_that_drops_its_device_token_is_bounded_by_its_address() -> None:
    assert len(await attempts(Shop(), 1000, strangers())) <= 2 * DEFAULTS.address.unpaid_orders


async def test_many_devices_behind_one_address_are_bounded_by_the_address() -> None:
    devices = (replace(next(strangers()), device=str(number)) for number in count())
    placed = await attempts(Shop(), 1000, devices)
    assert len(placed) <= 2 * DEFAULTS.address.unpaid_orders


async def test_one_order_does_not_hold_all_of_a_product() -> None:
    shop = Shop()
    shop.catalogue.stock[TEAPOT] = 40
    assert await attempts(shop, 1, repeat(ADA), pieces=40) == []
    assert len(await attempts(shop, 1, repeat(ADA), pieces=20)) == 1


async def test_neither_do_many_orders_of_one_account_device_or_address() -> None:
    for accounts, most in ((repeat(ADA), 20), (strangers(PHONE), 20), (strangers(), 30)):
        shop = Shop()
        shop.catalogue.stock[TEAPOT] = 40
        held = sum(line.quantity for order in await attempts(shop, 50, accounts, pieces=4) for line in order.lines)
        assert held <= most
    shop = Shop()
    shop.catalogue.stock[TEAPOT] = 40
    devices = (replace(next(strangers()), device=str(number)) for number in count())
    assert len(await attempts(shop, 100, devices)) <= 30


async def test_a_family_behind_one_address_orders_as_before() -> None:
    assert len(await attempts(Shop(), 20, strangers())) == 20


async def test_the_last_piece_can_be_ordered() -> None:
    shop = Shop()
    shop.catalogue.stock[TEAPOT] = 1
    assert len(await attempts(shop, 1, repeat(ADA))) == 1


async def test_an_office_behind_one_address_buys_in_a_flash_sale() -> None:
    shop = Shop()
    shop.catalogue.stock[TEAPOT] = 300
    assert len(await attempts(shop, 250, strangers(), pieces=2, answer=captured)) == 250


async def test_customers_whose_payments_are_slow_do_not_shut_each_other_out() -> None:
    assert len(await attempts(Shop(), 1000, strangers(), addresses())) == 1000
