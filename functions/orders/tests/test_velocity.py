"""Velocity limits: of a new account, of a customer with history, and how they recover with time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from functions.orders.domain import Order
from functions.orders.service import PlaceOrder
from functions.orders.tests.shop import ADA, Shop, captured, declined, place_order, reserved
from functions.orders.velocity import SHARDS, VelocityLimits, VelocityRecord, address_record_id
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import CUSTOMER, Identity
from functions.runtime.ids import new_id

FEW = VelocityLimits(
    orders_per_hour=6,
    declines_per_hour=3,
    unpaid_orders=4,
    orders_per_hour_per_address=0,
    declines_per_hour_per_address=0,
)
HOUR = timedelta(hours=1)


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
        await pay(shop, await place(shop, replace(FEW, orders_per_hour=6)))
    limits = replace(FEW, orders_per_hour=3)  # growth has doubled it
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
    limits = VelocityLimits(0, 0, 0, orders_per_hour_per_address=8 * SHARDS, declines_per_hour_per_address=0)
    accounts = [Identity(new_id("usr"), frozenset({CUSTOMER})) for _ in range(400)]
    results = [
        await asyncio.gather(place(shop, limits, caller, address="192.0.2.1"), return_exceptions=True)
        for caller in accounts
    ]
    placed = sum(isinstance(result, Order) for (result,) in results)
    assert placed <= 2 * 8 * SHARDS
    await place(shop, limits, accounts[0], address="192.0.2.2")


def test_an_ipv6_network_counts_as_one_and_no_record_holds_an_address() -> None:
    ids = {address_record_id(f"2001:db8::{n}", ADA.subject) for n in range(1, 9)}
    assert len(ids) == 1
    assert ids != {address_record_id("2001:db8:0:1::1", ADA.subject)}
    assert "2001" not in ids.pop()
    shards = {address_record_id("192.0.2.1", new_id("usr")) for _ in range(500)}
    assert len(shards) == SHARDS


async def test_a_refusal_writes_nothing(shop: Shop) -> None:
    for _ in range(4):
        await place(shop)
    before = await shop.memory.get(VelocityRecord, ADA.subject)
    await refused(shop)
    assert await shop.memory.get(VelocityRecord, ADA.subject) == before


async def test_records_end(shop: Shop) -> None:
    await place(shop, VelocityLimits(), address="192.0.2.1")
    net = address_record_id("192.0.2.1", ADA.subject)
    assert await shop.memory.get(VelocityRecord, net)
    shop.clock.advance(timedelta(hours=3))
    await shop.memory.expire(shop.clock.now())
    assert await shop.memory.get(VelocityRecord, net) is None
    assert await shop.memory.get(VelocityRecord, ADA.subject)
