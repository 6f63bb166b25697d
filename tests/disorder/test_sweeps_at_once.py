"""Several ticks at once, as from two brokers or a tick that is sent again, do what one does; and one failure is one."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from events.catalog import OrderCancelled, PaymentCaptured, StockRejected, StockReserved
from functions.orders.domain import Order, Status
from functions.products.stock.domain import Reservation, State
from tests.disorder.invariants import always, ledger
from tests.disorder.stores import Restless, on_disk, restless
from tests.disorder.world import HANDLED, World

MANY = 210  # more than two pages of every sweep


@pytest.fixture(params=["memory", "disk"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    world = World(restless(random.Random(7)) if request.param == "memory" else on_disk(tmp_path))
    await world.start()
    yield world
    await world.close()


async def sweep_at_once(world: World, domain: str) -> None:
    assert await asyncio.gather(*(world.sweep(domain) for _ in range(3))) == [HANDLED] * 3
    await world.collect()


async def deliver(world: World, *domains: str) -> None:
    """What is on its way to these domains, and what that causes."""
    await world.collect()
    while parcels := [parcel for parcel in world.pending if parcel.domain in domains]:
        await asyncio.gather(*(world.deliver(parcel) for parcel in parcels))
        await world.collect()


async def placed(world: World, count: int, *, flaky: bool = False) -> list[str]:
    ada = await world.register("ada@example.com")
    product = await world.add_product(count)
    token = "tok_flaky" if flaky else "tok_ok"
    wanted = (world.place(ada, {product: 1}, token) for _ in range(count))
    return [order.id for order in await asyncio.gather(*wanted)]


def told(world: World, kind: type[Any]) -> Counter[str]:
    """How often each order's news of this kind was sent; what is delivered once counts once."""
    ids = {parcel.row.id: parcel.row.subject for parcel in world.pending if parcel.row.type == kind.TYPE}
    return Counter(ids.values())


async def test_orders_that_stopped_moving_are_cancelled_once(world: World) -> None:
    orders = await placed(world, MANY)
    world.clock.advance(timedelta(minutes=16))
    await sweep_at_once(world, "orders")

    assert told(world, OrderCancelled) == dict.fromkeys(orders, 1)
    found = await world.store["orders"].get_many(Order, orders)
    assert {(order.status, order.cancel_reason) for order in found.values()} == {
        (Status.CANCELLED, "TIMED_OUT")
    }


async def test_expired_reservations_are_let_go_once(world: World) -> None:
    orders = await placed(world, MANY)
    await deliver(world, "products")
    world.clock.advance(timedelta(minutes=21))
    await sweep_at_once(world, "products")

    assert told(world, StockRejected) == dict.fromkeys(orders, 1)
    found = await world.store["products"].get_many(Reservation, orders)
    assert {reservation.state for reservation in found.values()} == {State.RELEASED}
    await always(world)


async def test_charges_that_were_left_pending_are_made_once(world: World) -> None:
    orders = await placed(world, 30, flaky=True)
    await deliver(world, "products")
    charges = [parcel for parcel in world.pending if parcel.row.type == StockReserved.TYPE]
    for parcel in charges:
        if parcel.domain == "payments":
            await world.deliver(parcel)  # in vain, the first time
    for _ in range(3):
        world.clock.advance(timedelta(minutes=1))
        await sweep_at_once(world, "payments")

    assert told(world, PaymentCaptured) == dict.fromkeys(orders, 1)
    assert [books.charges for books in (await ledger(world)).values()] == [[1250]] * 30


async def test_mail_that_waits_goes_out_once(world: World) -> None:
    world.postman.down = True
    for number in range(30):
        await world.register(f"{number}@example.com")
    await deliver(world, "notifications")
    world.postman.down = False
    world.clock.advance(timedelta(minutes=10))
    await sweep_at_once(world, "notifications")

    assert len(world.postman.sent) == 31
    assert max(Counter(world.postman.sent).values()) == 1


@pytest.mark.parametrize(
    ("domain", "pause", "kind"), [("orders", 16, OrderCancelled), ("products", 21, StockRejected)]
)
async def test_what_breaks_a_sweep_holds_up_no_other(domain: str, pause: int, kind: type[Any]) -> None:
    world = World(restless(random.Random(7)))
    await world.start()
    first, *others = await placed(world, 12)
    await deliver(world, "products")
    store = world.store[domain]
    assert isinstance(store, Restless)
    store.broken.add(first)
    world.clock.advance(timedelta(minutes=pause))
    await sweep_at_once(world, domain)

    assert told(world, kind) == dict.fromkeys(others, 1)
