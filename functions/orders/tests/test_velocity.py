"""Velocity limits: of a new account, of a customer with history, and how they recover with time."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta

import pytest

from functions.orders.domain import Order
from functions.orders.service import PlaceOrder
from functions.orders.tests.shop import (
    ADA,
    CUP,
    TEAPOT,
    Shop,
    captured,
    declined,
    deleted,
    place_order,
    rejected,
    reserved,
)
from functions.orders.velocity import SHARDS, Limits, Origin, VelocityLimits, VelocityRecord
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import CUSTOMER, Identity
from functions.runtime.ids import new_id

FEW = VelocityLimits(Limits(6, 3, 4), device=Limits(), address=Limits())
SHARE = VelocityLimits(Limits(stock_share=0.5), Limits(), Limits())
HOUR = timedelta(hours=1)
PHONE = "d" * 32


def somebody(device: str = "") -> Identity:
    return Identity(new_id("usr"), frozenset({CUSTOMER}), device=device)


async def place(
    shop: Shop,
    limits: VelocityLimits = FEW,
    caller: Identity = ADA,
    asked: PlaceOrder | None = None,
    address: str = "",
) -> Order:
    command = replace(asked or place_order(), client_address=address)
    return await shop.compose(velocity_limits=limits).place(command, caller)


async def refused(shop: Shop, limits: VelocityLimits = FEW, **more: object) -> ServiceError:
    with pytest.raises(ServiceError) as raised:
        await place(shop, limits, **more)  # type: ignore[arg-type] # named by the tests
    assert raised.value.code is Code.RESOURCE_EXHAUSTED
    assert (raised.value.retry_after or 0) >= 1
    return raised.value


async def pay(shop: Shop, order: Order) -> None:
    await shop.receive(reserved(order))
    await shop.receive(captured(order))


async def test_orders_that_nobody_pays_are_bounded_and_a_paid_one_makes_room(shop: Shop) -> None:
    placed = [await place(shop) for _ in range(4)]
    assert (await refused(shop)).reason == "TOO_MANY_UNPAID_ORDERS"
    await pay(shop, placed[0])
    await place(shop)
    assert (await refused(shop)).reason == "TOO_MANY_UNPAID_ORDERS"


async def test_an_hours_orders_come_back_within_the_hour(shop: Shop) -> None:
    for _ in range(6):
        await pay(shop, await place(shop, FEW))
    limits = replace(FEW, account=Limits(3, 3, 4))  # growth has doubled it
    error = await refused(shop, limits)
    assert error.reason == "TOO_MANY_ORDERS"
    assert error.retry_after is not None
    shop.clock.advance(timedelta(seconds=error.retry_after))
    await place(shop, limits)


async def test_declines_are_bounded_and_forgotten_with_time(shop: Shop) -> None:
    for _ in range(3):
        await shop.receive(declined(await place(shop)))
    assert (await refused(shop)).reason == "TOO_MANY_DECLINES"
    assert (await refused(shop)).reason == "TOO_MANY_DECLINES"
    shop.clock.advance(HOUR)
    await place(shop)


async def test_limits_grow_with_what_a_customer_has_paid(shop: Shop) -> None:
    for _ in range(5):
        await pay(shop, await place(shop))
    shop.clock.advance(HOUR)
    for _ in range(8):  # twice four
        await place(shop)
    assert (await refused(shop)).reason == "TOO_MANY_UNPAID_ORDERS"


async def test_orders_at_once_do_not_slip_through(shop: Shop) -> None:
    results = await asyncio.gather(*(place(shop) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, Order) for result in results) == 4
    assert len([event for event in shop.memory.events if event.TYPE == "shop.order.placed.v1"]) == 4


async def test_a_replayed_order_costs_nothing_and_a_refusal_keeps_no_key(shop: Shop) -> None:
    asked = place_order(key="k")
    first = await place(shop, asked=asked)
    for _ in range(10):
        assert await place(shop, asked=asked) == first
    for _ in range(3):
        await place(shop)
    another = place_order(key="k2")
    await refused(shop, asked=another)
    await pay(shop, first)
    assert (await place(shop, asked=another)).id != first.id


async def test_an_address_is_bounded_whatever_the_account_and_others_are_not(shop: Shop) -> None:
    limits = VelocityLimits(Limits(), Limits(), Limits(orders_per_hour=8 * SHARDS))
    accounts = [Identity(new_id("usr"), frozenset({CUSTOMER})) for _ in range(400)]
    results = [
        await asyncio.gather(place(shop, limits, caller, address="192.0.2.1"), return_exceptions=True)
        for caller in accounts
    ]
    placed = sum(isinstance(result, Order) for (result,) in results)
    assert placed <= 2 * 8 * SHARDS
    await place(shop, limits, accounts[0], address="192.0.2.2")


def test_an_ipv6_network_counts_as_one_and_no_record_holds_an_address_or_a_device() -> None:
    origins = {tuple(Origin.of(ADA.subject, "", f"2001:db8::{n}").records) for n in range(1, 9)}
    assert len(origins) == 1
    assert origins != {tuple(Origin.of(ADA.subject, "", "2001:db8:0:1::1").records)}
    assert "2001" not in str(origins)
    shards = {Origin.of(new_id("usr"), "", "192.0.2.1").address for _ in range(500)}
    assert len(shards) == SHARDS
    assert PHONE not in str(Origin.of(ADA.subject, PHONE, ""))


async def test_a_refusal_writes_nothing(shop: Shop) -> None:
    for _ in range(4):
        await place(shop)
    before = await shop.memory.get(VelocityRecord, ADA.subject)
    await refused(shop)
    assert await shop.memory.get(VelocityRecord, ADA.subject) == before


async def test_records_end(shop: Shop) -> None:
    caller = replace(ADA, device=PHONE)
    await place(shop, VelocityLimits(), caller, address="192.0.2.1")
    account, *others = Origin.of(ADA.subject, PHONE, "192.0.2.1").records
    assert len(await shop.memory.get_many(VelocityRecord, others)) == 2
    shop.clock.advance(timedelta(hours=3))
    await shop.memory.expire(shop.clock.now())
    assert await shop.memory.get_many(VelocityRecord, others) == {}
    assert await shop.memory.get(VelocityRecord, account)


async def test_a_deleted_accounts_record_is_erased(shop: Shop) -> None:
    await place(shop, VelocityLimits())
    await shop.receive(deleted(ADA))
    assert await shop.memory.get(VelocityRecord, ADA.subject) is None


async def test_a_device_is_bounded_whatever_account_and_address(shop: Shop) -> None:
    limits = VelocityLimits(Limits(), Limits(unpaid_orders=4), Limits())
    for n in range(4):
        await place(shop, limits, somebody(PHONE), address=f"192.0.2.{n}")
    error = await refused(shop, limits, caller=somebody(PHONE), address="192.0.2.9")
    assert error.reason == "TOO_MANY_UNPAID_ORDERS"
    await place(shop, limits, somebody("another"), address="192.0.2.9")


async def test_customers_without_a_device_token_share_no_budget_but_their_addresss(shop: Shop) -> None:
    limits = VelocityLimits(Limits(), Limits(unpaid_orders=1), Limits())
    for _ in range(4):
        await place(shop, limits, somebody(), address="192.0.2.1")


async def test_an_account_holds_at_most_its_share_of_a_products_stock(shop: Shop) -> None:
    shop.catalogue.stock[TEAPOT] = 40
    await place(shop, SHARE, asked=place_order((TEAPOT, 15)))
    error = await refused(shop, SHARE, asked=place_order((TEAPOT, 6)))
    assert error.reason == "TOO_MANY_UNPAID_PIECES"
    assert "20 pieces" in error.message
    await place(shop, SHARE, asked=place_order((TEAPOT, 5), (CUP, 9)))
    await refused(shop, SHARE, asked=place_order((TEAPOT, 1)))
    await place(shop, SHARE, caller=somebody(), asked=place_order((TEAPOT, 20)))


async def test_what_was_paid_or_ended_holds_no_stock(shop: Shop) -> None:
    shop.catalogue.stock[TEAPOT] = 20
    for end in (captured, declined, rejected):
        order = await place(shop, SHARE, asked=place_order((TEAPOT, 10)))
        await refused(shop, SHARE, asked=place_order((TEAPOT, 1)))
        await shop.receive(end(order))


@pytest.mark.parametrize("on_hand", [0, 1, 4, 5])
async def test_a_few_pieces_may_always_be_ordered(shop: Shop, on_hand: int) -> None:
    shop.catalogue.stock[TEAPOT] = on_hand
    await place(shop, SHARE, asked=place_order((TEAPOT, max(1, on_hand))))


async def test_the_share_of_stock_grows_with_what_a_customer_has_paid(shop: Shop) -> None:
    shop.catalogue.stock[TEAPOT] = 40
    for _ in range(5):
        await pay(shop, await place(shop, SHARE))
    shop.catalogue.stock[TEAPOT] = 40
    await place(shop, SHARE, asked=place_order((TEAPOT, 40)))


async def test_the_shards_of_an_address_hold_a_share_together(shop: Shop) -> None:
    shop.catalogue.stock[TEAPOT] = 100
    limits = VelocityLimits(Limits(), Limits(), Limits(stock_share=0.75))
    placed = 0
    for _ in range(100):
        with contextlib.suppress(ServiceError):
            await place(shop, limits, somebody(), address="192.0.2.1")
            placed += 1
    assert placed == 75


async def test_stock_is_looked_up_only_where_it_decides(shop: Shop) -> None:
    limits = VelocityLimits()
    await place(shop, limits, asked=place_order((TEAPOT, 5)))
    calls = shop.catalogue.stock_calls
    await place(shop, limits, asked=place_order((CUP, 5)))
    assert shop.catalogue.stock_calls == calls == 0
    await place(shop, limits, asked=place_order((TEAPOT, 1)))
    assert shop.catalogue.stock_calls == 1


async def test_pieces_ordered_at_once_do_not_slip_through(shop: Shop) -> None:
    shop.catalogue.stock[TEAPOT] = 40
    asked = place_order((TEAPOT, 10))
    results = await asyncio.gather(*(place(shop, SHARE, asked=asked) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, Order) for result in results) == 2
