"""Budgets: what a newcomer may do, what a customer with history may, and that time gives it back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from functions.orders import service
from functions.orders.checkout import Placement
from functions.orders.domain import Order
from functions.orders.store import Orders
from functions.orders.tests.world import ADA, World, captured, declined, reserved, wanted
from functions.orders.velocity import SHARDS, Budgets, Pace, address_id
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import CUSTOMER, Identity
from functions.runtime.ids import new_id

FEW = Budgets(
    orders_per_hour=6,
    declines_per_hour=3,
    unpaid_orders=4,
    orders_per_hour_per_address=0,
    declines_per_hour_per_address=0,
)
HOUR = timedelta(hours=1)


async def place(
    world: World,
    budgets: Budgets = FEW,
    caller: Identity = ADA,
    asked: Placement | None = None,
    address: str = "",
) -> Order:
    placement = replace(asked or wanted(), client_address=address)
    return await service.place(world.orders, world.catalogue, world.clock, caller, placement, budgets=budgets)


async def refused(world: World, budgets: Budgets = FEW, **more: object) -> ServiceError:
    with pytest.raises(ServiceError) as raised:
        await place(world, budgets, **more)  # type: ignore[arg-type] # named by the tests
    assert raised.value.code is Code.RESOURCE_EXHAUSTED
    assert (raised.value.retry_after or 0) >= 1
    return raised.value


async def pay(world: World, order: Order) -> None:
    await world.hear(reserved(order))
    await world.hear(captured(order))


async def test_orders_that_nobody_pays_are_bounded_and_a_paid_one_makes_room(world: World) -> None:
    placed = [await place(world) for _ in range(4)]
    assert (await refused(world)).reason == "TOO_MANY_UNPAID_ORDERS"
    await pay(world, placed[0])
    await place(world)
    assert (await refused(world)).reason == "TOO_MANY_UNPAID_ORDERS"


async def test_an_hours_orders_come_back_within_the_hour(world: World) -> None:
    for _ in range(6):
        await pay(world, await place(world, replace(FEW, orders_per_hour=6)))
    budgets = replace(FEW, orders_per_hour=3)  # growth has doubled it
    error = await refused(world, budgets)
    assert error.reason == "TOO_MANY_ORDERS"
    assert error.retry_after is not None
    world.clock.advance(timedelta(seconds=error.retry_after))
    await place(world, budgets)


async def test_declines_are_bounded_and_forgotten_with_time(world: World) -> None:
    for _ in range(3):
        await world.hear(declined(await place(world)))
    assert (await refused(world)).reason == "TOO_MANY_DECLINES"
    assert (await refused(world)).reason == "TOO_MANY_DECLINES"
    world.clock.advance(HOUR)
    await place(world)


async def test_budgets_grow_with_what_a_customer_has_paid(world: World) -> None:
    for _ in range(5):
        await pay(world, await place(world))
    world.clock.advance(HOUR)
    for _ in range(8):  # twice four
        await place(world)
    assert (await refused(world)).reason == "TOO_MANY_UNPAID_ORDERS"


async def test_orders_at_once_do_not_slip_through(world: World) -> None:
    results = await asyncio.gather(*(place(world) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, Order) for result in results) == 4
    assert len([event for event in world.memory.events if event.TYPE == "shop.order.placed.v1"]) == 4


async def test_a_replayed_order_costs_nothing_and_a_refusal_keeps_no_key(world: World) -> None:
    asked = wanted(key="k")
    first = await place(world, asked=asked)
    for _ in range(10):
        assert await place(world, asked=asked) == first
    for _ in range(3):
        await place(world)
    another = wanted(key="k2")
    await refused(world, asked=another)
    await pay(world, first)
    assert (await place(world, asked=another)).id != first.id


async def test_an_address_is_bounded_whatever_the_account_and_others_are_not(world: World) -> None:
    budgets = Budgets(0, 0, 0, orders_per_hour_per_address=8 * SHARDS, declines_per_hour_per_address=0)
    accounts = [Identity(new_id("usr"), frozenset({CUSTOMER})) for _ in range(400)]
    results = [
        await asyncio.gather(place(world, budgets, caller, address="192.0.2.1"), return_exceptions=True)
        for caller in accounts
    ]
    placed = sum(isinstance(result, Order) for (result,) in results)
    assert placed <= 2 * 8 * SHARDS
    await place(world, budgets, accounts[0], address="192.0.2.2")


def test_an_ipv6_network_counts_as_one_and_no_record_holds_an_address() -> None:
    ids = {address_id(f"2001:db8::{n}", ADA.subject) for n in range(1, 9)}
    assert len(ids) == 1
    assert ids != {address_id("2001:db8:0:1::1", ADA.subject)}
    assert "2001" not in ids.pop()
    shards = {address_id("192.0.2.1", new_id("usr")) for _ in range(500)}
    assert len(shards) == SHARDS


async def test_a_refusal_writes_nothing(world: World) -> None:
    for _ in range(4):
        await place(world)
    before = await world.memory.get(Pace, ADA.subject)
    await refused(world)
    assert await world.memory.get(Pace, ADA.subject) == before


async def test_records_end(world: World) -> None:
    await place(world, Budgets(), address="192.0.2.1")
    net = address_id("192.0.2.1", ADA.subject)
    assert await world.memory.get(Pace, net)
    world.clock.advance(timedelta(hours=3))
    await world.memory.expire(world.clock.now())
    assert await Orders(world.memory).store.get(Pace, net) is None
    assert await world.memory.get(Pace, ADA.subject)
