"""Inventory denial and card testing: what one account gets done by orders that nobody pays."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from functions.orders import service
from functions.orders.domain import Order
from functions.orders.tests.world import ADA, World, declined, wanted
from functions.orders.velocity import Budgets
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import CUSTOMER, Identity
from functions.runtime.ids import new_id

DEFAULTS = Budgets()


async def attempts(world: World, number: int, who: Identity | None, *, decline: bool) -> list[Order]:
    """The orders that came through, of so many within twelve seconds; by new accounts where `who` is None."""
    placed = []
    asked = replace(wanted(), client_address="192.0.2.66")
    for _ in range(number):
        world.clock.advance(timedelta(seconds=12) / number)
        account = who or Identity(new_id("usr"), frozenset({CUSTOMER}))
        try:
            order = await service.place(
                world.orders, world.catalogue, world.clock, account, asked, budgets=DEFAULTS
            )
        except ServiceError as error:
            assert error.code is Code.RESOURCE_EXHAUSTED  # noqa: PT017 - or else a fault
            continue
        placed.append(order)
        if decline:
            await world.hear(declined(order))
    return placed


async def test_a_thousand_orders_by_one_account_hold_the_stock_of_ten() -> None:
    assert len(await attempts(World(), 1000, ADA, decline=False)) == DEFAULTS.unpaid_orders


async def test_two_hundred_and_fifty_one_cards_are_not_tested_by_one_account() -> None:
    assert len(await attempts(World(), 251, ADA, decline=True)) <= DEFAULTS.declines_per_hour + 1


async def test_nor_by_an_account_a_card_from_one_address() -> None:
    placed = await attempts(World(), 1000, None, decline=False)
    assert len(placed) <= 2 * DEFAULTS.orders_per_hour_per_address


async def test_a_family_behind_one_address_orders_as_before() -> None:
    assert len(await attempts(World(), 20, None, decline=False)) == 20
