"""Concurrent sweeps, as from two brokers or a repeated tick, do what one does; a failing entity stops no other."""

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
from functions.runtime.tests.conftest import postgres
from tests.disorder.invariants import always, ledger
from tests.disorder.platform import HANDLED, Platform
from tests.disorder.stores import InterleavingStore, interleaving, on_disk, on_postgres

__all__ = ["postgres"]

MANY = 210  # more than two pages of every sweep


@pytest.fixture(params=["memory", "disk", "postgres"])
async def platform(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Platform]:
    if request.param == "postgres":
        open_store = on_postgres(request.getfixturevalue("postgres"))
    else:
        open_store = interleaving(random.Random(7)) if request.param == "memory" else on_disk(tmp_path)
    platform = Platform(open_store)
    await platform.start()
    yield platform
    await platform.close()


async def sweep_at_once(platform: Platform, domain: str) -> None:
    assert await asyncio.gather(*(platform.sweep(domain) for _ in range(3))) == [HANDLED] * 3
    await platform.publish_committed()


async def deliver(platform: Platform, *domains: str) -> None:
    """Deliver pending events of these domains, and those that they cause."""
    await platform.publish_committed()
    while deliveries := [delivery for delivery in platform.pending if delivery.domain in domains]:
        await asyncio.gather(*(platform.deliver(delivery) for delivery in deliveries))
        await platform.publish_committed()


async def placed(platform: Platform, count: int, *, flaky: bool = False) -> list[str]:
    ada = await platform.register("ada@example.com")
    product = await platform.add_product(count)
    token = "tok_flaky" if flaky else "tok_ok"
    wanted = (platform.place(ada, {product: 1}, token) for _ in range(count))
    return [order.id for order in await asyncio.gather(*wanted)]


def sent_of(platform: Platform, kind: type[Any]) -> Counter[str]:
    """Count the events of this type by order."""
    ids = {delivery.row.id: delivery.row.subject for delivery in platform.pending if delivery.row.type == kind.TYPE}
    return Counter(ids.values())


async def test_orders_that_stopped_moving_are_cancelled_once(platform: Platform) -> None:
    orders = await placed(platform, MANY)
    platform.clock.advance(timedelta(minutes=16))
    await sweep_at_once(platform, "orders")

    assert sent_of(platform, OrderCancelled) == dict.fromkeys(orders, 1)
    found = await platform.store["orders"].get_many(Order, orders)
    assert {(order.status, order.cancel_reason) for order in found.values()} == {(Status.CANCELLED, "TIMED_OUT")}


async def test_expired_reservations_are_released_once(platform: Platform) -> None:
    orders = await placed(platform, MANY)
    await deliver(platform, "products")
    platform.clock.advance(timedelta(minutes=21))
    await sweep_at_once(platform, "products")

    assert sent_of(platform, StockRejected) == dict.fromkeys(orders, 1)
    found = await platform.store["products"].get_many(Reservation, orders)
    assert {reservation.state for reservation in found.values()} == {State.RELEASED}
    await always(platform)


async def test_charges_that_were_left_pending_are_made_once(platform: Platform) -> None:
    orders = await placed(platform, 30, flaky=True)
    await deliver(platform, "products")
    charges = [delivery for delivery in platform.pending if delivery.row.type == StockReserved.TYPE]
    for delivery in charges:
        if delivery.domain == "payments":
            await platform.deliver(delivery)  # the first charge fails
    for _ in range(3):
        platform.clock.advance(timedelta(minutes=1))
        await sweep_at_once(platform, "payments")

    assert sent_of(platform, PaymentCaptured) == dict.fromkeys(orders, 1)
    assert [totals.charges for totals in (await ledger(platform)).values()] == [[1250]] * 30


async def test_mail_that_waits_goes_out_once(platform: Platform) -> None:
    platform.mail_channel.down = True
    for number in range(30):
        await platform.register(f"{number}@example.com")
    await deliver(platform, "notifications")
    platform.mail_channel.down = False
    platform.clock.advance(timedelta(minutes=10))
    await sweep_at_once(platform, "notifications")

    assert len(platform.mail_channel.sent) == 31
    assert max(Counter(platform.mail_channel.sent).values()) == 1


@pytest.mark.parametrize(("domain", "pause", "kind"), [("orders", 16, OrderCancelled), ("products", 21, StockRejected)])
async def test_an_entity_that_cannot_be_written_stops_no_other(domain: str, pause: int, kind: type[Any]) -> None:
    platform = Platform(interleaving(random.Random(7)))
    await platform.start()
    first, *others = await placed(platform, 12)
    await deliver(platform, "products")
    store = platform.store[domain]
    assert isinstance(store, InterleavingStore)
    store.broken.add(first)
    platform.clock.advance(timedelta(minutes=pause))
    await sweep_at_once(platform, domain)

    assert sent_of(platform, kind) == dict.fromkeys(others, 1)
