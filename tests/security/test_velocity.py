"""Inventory denial and card testing: what one account gets done by orders that nobody pays."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from functions.orders.domain import Order
from functions.orders.tests.shop import ADA, Shop, declined, place_order
from functions.orders.velocity import VelocityLimits
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import CUSTOMER, Identity
from functions.runtime.ids import new_id

DEFAULTS = VelocityLimits()


async def attempts(shop: Shop, number: int, who: Identity | None, *, decline: bool) -> list[Order]:
    """The orders that came through, of so many within twelve seconds; by new accounts where `who` is None."""
    placed = []
    orders = shop.compose(velocity_limits=DEFAULTS)
    command = replace(place_order(), client_address="192.0.2.66")
    for _ in range(number):
        shop.clock.advance(timedelta(seconds=12) / number)
        account = who or Identity(new_id("usr"), frozenset({CUSTOMER}))
        try:
            order = await orders.place(command, account)
        except ServiceError as error:
            assert error.code is Code.RESOURCE_EXHAUSTED  # noqa: PT017 - or else a fault
            continue
        placed.append(order)
        if decline:
            await shop.receive(declined(order))
    return placed


async def test_a_thousand_orders_by_one_account_hold_the_stock_of_ten() -> None:
    assert len(await attempts(Shop(), 1000, ADA, decline=False)) == DEFAULTS.unpaid_orders


async def test_two_hundred_and_fifty_one_cards_are_not_tested_by_one_account() -> None:
    assert len(await attempts(Shop(), 251, ADA, decline=True)) <= DEFAULTS.declines_per_hour + 1


async def test_nor_by_an_account_a_card_from_one_address() -> None:
    placed = await attempts(Shop(), 1000, None, decline=False)
    assert len(placed) <= 2 * DEFAULTS.orders_per_hour_per_address


async def test_a_family_behind_one_address_orders_as_before() -> None:
    assert len(await attempts(Shop(), 20, None, decline=False)) == 20
